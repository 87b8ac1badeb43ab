#include "worker_pool.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <system_error>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/files.hpp"
#include <tilewright/error.hpp>

namespace tilewright::tools {
namespace {

using Work = std::function<std::string(std::size_t)>;

[[noreturn]] void call_failed(const char* call) {
  throw Error(ErrorCode::internal, fmt::format("{} failed: {}", call, std::generic_category().message(errno)),
              "processes and sockets can be made", "try again with --jobs 1");
}

/// False where the other side has gone, as for send().
bool receive(int socket, void* to, std::size_t bytes) {
  for (std::size_t have = 0; have < bytes;) {
    const ::ssize_t got = ::recv(socket, static_cast<char*>(to) + have, bytes - have, 0);
    if (got < 0 && errno == EINTR)
      continue;
    if (got <= 0)
      return false;
    have += static_cast<std::size_t>(got);
  }
  return true;
}

bool send(int socket, const void* from, std::size_t bytes) {
  for (std::size_t sent = 0; sent < bytes;) {
    const ::ssize_t count = ::send(socket, static_cast<const char*>(from) + sent, bytes - sent, MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR)
      continue;
    if (count < 0)
      return false;
    sent += static_cast<std::size_t>(count);
  }
  return true;
}

/// A worker's life: a job's number in, its result's length and bytes out. Never returns: what the parent had begun,
/// buffers of stdout among it, is the parent's.
[[noreturn]] void serve(int socket, ::pid_t parent, const Work& work) {
  constexpr int good = 0, bad = 1;
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (::getppid() != parent) // it died before the line above
    ::_exit(bad);
  try {
    std::uint64_t job = 0;
    while (receive(socket, &job, sizeof job)) {
      const std::string result = work(job);
      const std::uint64_t length = result.size();
      if (!send(socket, &length, sizeof length) || !send(socket, result.data(), result.size()))
        ::_exit(bad);
    }
    ::_exit(good);
  } catch (...) {
    ::_exit(bad);
  }
}

/// One forked process and the job it has.
class Worker {
public:
  explicit Worker(const Work& work) {
    int ends[2] = {};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
      call_failed("socketpair");
    socket_ = support::FileDescriptor(ends[0]);
    const support::FileDescriptor other(ends[1]);
    const ::pid_t parent = ::getpid();
    child_ = ::fork();
    if (child_ < 0)
      call_failed("fork");
    if (child_ == 0) {
      socket_ = support::FileDescriptor(); // so that the child sees the parent's end
      serve(other.get(), parent, work);
    }
  }
  /// Ends the process, whatever it does. Closing the socket would not do: workers that were forked later have it too.
  ~Worker() {
    if (child_ <= 0)
      return;
    ::kill(child_, SIGKILL); // what it was publishing appears whole or not at all
    ::waitpid(child_, nullptr, 0);
  }
  Worker(Worker&& other) noexcept
      : socket_(std::move(other.socket_)), child_(std::exchange(other.child_, 0)), job_(other.job_) {}
  Worker& operator=(Worker&& other) noexcept {
    std::swap(socket_, other.socket_);
    std::swap(child_, other.child_);
    std::swap(job_, other.job_);
    return *this;
  }

  [[nodiscard]] int socket() const noexcept { return socket_.get(); }
  [[nodiscard]] std::optional<std::size_t> job() const noexcept { return job_; }

  bool start(std::size_t job) {
    const std::uint64_t number = job;
    job_ = job;
    return send(socket_.get(), &number, sizeof number);
  }

  /// The job's result; nothing where the process died.
  std::optional<std::string> finish() {
    std::uint64_t length = 0;
    std::string result;
    if (!receive(socket_.get(), &length, sizeof length))
      return std::nullopt;
    result.resize(length);
    if (!receive(socket_.get(), result.data(), length))
      return std::nullopt;
    job_.reset();
    return result;
  }

private:
  support::FileDescriptor socket_;
  ::pid_t child_ = 0;
  std::optional<std::size_t> job_;
};

/// Waits until one of the workers has something to say.
std::vector<Worker>::iterator wait_for_one(std::vector<Worker>& workers) {
  std::vector<::pollfd> sockets;
  sockets.reserve(workers.size());
  for (const Worker& worker : workers)
    sockets.push_back({worker.socket(), POLLIN, 0});
  while (::poll(sockets.data(), sockets.size(), -1) < 0)
    if (errno != EINTR)
      call_failed("poll");
  const auto ready = std::find_if(sockets.begin(), sockets.end(), [](const ::pollfd& one) { return one.revents != 0; });
  return workers.begin() + (ready - sockets.begin());
}

} // namespace

void run_in_processes(std::size_t jobs, unsigned workers, const Work& work,
                      const std::function<void(std::size_t, std::optional<std::string>)>& done) {
  if (workers <= 1) {
    for (std::size_t job = 0; job < jobs; ++job)
      done(job, work(job));
    return;
  }
  std::vector<Worker> busy;
  std::size_t next = 0;
  // All exist before the first job ends: what done() starts, threads among it, no child inherits.
  for (std::size_t count = std::min<std::size_t>(workers, jobs); count > 0; --count)
    busy.emplace_back(work);
  for (Worker& worker : busy)
    worker.start(next++);
  while (!busy.empty()) {
    const auto worker = wait_for_one(busy);
    const std::size_t job = *worker->job();
    auto result = worker->finish();
    const bool alive = result.has_value() && next < jobs && worker->start(next);
    if (alive)
      ++next;
    else
      busy.erase(worker);
    done(job, std::move(result));
  }
  if (next < jobs)
    throw Error(ErrorCode::internal,
                fmt::format("every worker process died, {} of {} jobs were not begun", jobs - next, jobs),
                "worker processes end by themselves",
                "run the command again: it goes on where it was; see whether the machine has too little memory");
}

} // namespace tilewright::tools
