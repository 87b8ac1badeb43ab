#include "emulator/subprocess.hpp"

#include <array>
#include <cerrno>

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/environment.hpp"
#include "support/files.hpp"
#include "support/text.hpp"

namespace tilewright::emulator {
namespace {

/// What a child process does between fork and exec.
class FileActions {
public:
  FileActions() { ::posix_spawn_file_actions_init(&actions_); }
  ~FileActions() { ::posix_spawn_file_actions_destroy(&actions_); }
  FileActions(const FileActions&) = delete;
  FileActions& operator=(const FileActions&) = delete;
  [[nodiscard]] posix_spawn_file_actions_t* get() { return &actions_; }

private:
  posix_spawn_file_actions_t actions_{};
};

std::string read_to_end(int descriptor) {
  std::string text;
  std::array<char, 4096> buffer{};
  for (;;) {
    const ssize_t count = ::read(descriptor, buffer.data(), buffer.size());
    if (count > 0)
      text.append(buffer.data(), static_cast<std::size_t>(count));
    else if (count == 0 || errno != EINTR)
      return text;
  }
}

int wait_for(pid_t child) {
  int status = 0;
  while (::waitpid(child, &status, 0) < 0)
    if (errno != EINTR)
      return -1;
  constexpr int killed_by = 128; // as shells count
  return WIFEXITED(status) ? WEXITSTATUS(status) : killed_by + WTERMSIG(status);
}

} // namespace

ProcessResult run_process(const std::vector<std::string>& command, const std::filesystem::path& folder) {
  int ends[2] = {-1, -1};
  if (::pipe2(ends, O_CLOEXEC) != 0)
    return {};
  const support::FileDescriptor reading(ends[0]);
  support::FileDescriptor writing(ends[1]);
  FileActions actions;
  ::posix_spawn_file_actions_addopen(actions.get(), STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_adddup2(actions.get(), writing.get(), STDOUT_FILENO);
  ::posix_spawn_file_actions_adddup2(actions.get(), writing.get(), STDERR_FILENO);
  ::posix_spawn_file_actions_addchdir_np(actions.get(), folder.c_str());
  std::vector<char*> arguments;
  arguments.reserve(command.size() + 1);
  for (const std::string& argument : command)
    arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  pid_t child = -1;
  if (const int error = ::posix_spawnp(&child, arguments[0], actions.get(), nullptr, arguments.data(), environ);
      error != 0)
    return {};
  writing = support::FileDescriptor();
  ProcessResult result;
  result.output = read_to_end(reading.get());
  result.status = wait_for(child);
  return result;
}

std::filesystem::path find_program(const std::string& program) {
  const auto executable = [](const std::filesystem::path& path) { return ::access(path.c_str(), X_OK) == 0; };
  if (program.find('/') != std::string::npos)
    return executable(program) ? std::filesystem::absolute(program) : std::filesystem::path();
  const std::string folders = support::environment("PATH").value_or("/usr/bin:/bin");
  for (const std::string_view folder : support::split(folders, ':'))
    if (!folder.empty() && executable(std::filesystem::path(folder) / program))
      return std::filesystem::path(folder) / program;
  return {};
}

} // namespace tilewright::emulator
