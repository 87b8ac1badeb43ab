// The remote cache against a real nginx, and against servers that hang, lie or are not there.
#include <doctest/doctest.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <thread>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cache/fixture.hpp"
#include "command.hpp"
#include "tools/http_cache.hpp"

using namespace tilewright;
using namespace tilewright::tools;
using cache::KernelCache;
using test::CountingCompiler;
using test::expected_cubin;
using test::spec_number;
using Clock = std::chrono::steady_clock;

namespace {

/// A socket on the loopback that listens; whoever connects is never answered.
class Listener {
public:
  Listener() : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    address_.sin_family = AF_INET;
    address_.sin_addr.s_addr = ::htonl(INADDR_LOOPBACK);
    REQUIRE(::bind(socket_, reinterpret_cast<::sockaddr*>(&address_), sizeof address_) == 0);
    ::socklen_t length = sizeof address_;
    REQUIRE(::getsockname(socket_, reinterpret_cast<::sockaddr*>(&address_), &length) == 0);
    REQUIRE(::listen(socket_, 16) == 0);
  }
  ~Listener() { ::close(socket_); }
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;
  [[nodiscard]] int port() const { return ::ntohs(address_.sin_port); }

private:
  int socket_;
  ::sockaddr_in address_{};
};

int free_port() { return Listener().port(); }

bool answers(int port) {
  const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  ::sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = ::htonl(INADDR_LOOPBACK);
  address.sin_port = ::htons(static_cast<std::uint16_t>(port));
  const bool connected = ::connect(socket, reinterpret_cast<::sockaddr*>(&address), sizeof address) == 0;
  ::close(socket);
  return connected;
}

/// authority.pem, and server.pem with its key for that name (such as "IP:127.0.0.1"), which the authority signed.
void make_certificates(const std::filesystem::path& folder, const std::string& name) {
  std::ofstream(folder / "names") << "subjectAltName=" << name << '\n';
  const std::string key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
  const std::string line = fmt::format(
      "cd '{0}' && (openssl req -x509 {1} -keyout authority.key -out authority.pem -days 2 -subj '/CN=our authority' &&"
      " openssl req {1} -keyout server.key -out server.csr -subj '/CN=our cache' &&"
      " openssl x509 -req -in server.csr -CA authority.pem -CAkey authority.key -CAcreateserial -days 2 -extfile names"
      " -out server.pem) > openssl.log 2>&1",
      folder.string(), key);
  const int status = std::system(line.c_str());
  CAPTURE(CommandLine::read(folder / "openssl.log"));
  REQUIRE(status == 0);
}

/// nginx with a folder of its own, as docs/cache.md sets it up for a cluster.
class Nginx {
public:
  Nginx() : Nginx("http", "") {}
  /// One that speaks https, with a certificate for that name.
  static std::unique_ptr<Nginx> encrypted(const std::string& certified_name) {
    return std::unique_ptr<Nginx>(new Nginx("https", certified_name));
  }
  ~Nginx() {
    ::kill(process_, SIGTERM);
    ::waitpid(process_, nullptr, 0);
  }
  Nginx(const Nginx&) = delete;
  Nginx& operator=(const Nginx&) = delete;

  static bool missing() {
    if (std::system("PATH=$PATH:/usr/sbin command -v nginx > /dev/null") == 0)
      return false;
    MESSAGE("SKIP: nginx is not installed");
    return true;
  }
  [[nodiscard]] std::string address() const { return fmt::format("{}://127.0.0.1:{}", protocol_, port_); }
  [[nodiscard]] std::filesystem::path files() const { return folder_.path() / "files"; }
  /// Of an encrypted server: what its certificate is trusted by.
  [[nodiscard]] std::filesystem::path authority() const { return folder_.path() / "authority.pem"; }

private:
  Nginx(const char* protocol, const std::string& certified_name) : protocol_(protocol), port_(free_port()) {
    const auto home = folder_.path();
    std::filesystem::create_directories(home / "files");
    std::string listen = fmt::format("listen 127.0.0.1:{};", port_);
    if (!certified_name.empty()) {
      make_certificates(home, certified_name);
      listen = fmt::format("listen 127.0.0.1:{} ssl; ssl_certificate {}/server.pem; ssl_certificate_key {}/server.key;",
                           port_, home.string(), home.string());
    }
    std::ofstream(home / "nginx.conf") << fmt::format(
        "daemon off; master_process off; pid {0}/pid; error_log {0}/error.log; events {{}}\n"
        "http {{ access_log off; client_max_body_size 64m; client_body_temp_path {0}/body; proxy_temp_path {0}/proxy;\n"
        "  fastcgi_temp_path {0}/fastcgi; uwsgi_temp_path {0}/uwsgi; scgi_temp_path {0}/scgi;\n"
        "  server {{ {1} root {0}/files;\n"
        "    location / {{ limit_except GET {{ allow 127.0.0.1; deny all; }} dav_methods PUT; create_full_put_path on; "
        "}}\n"
        "    location /others/ {{ limit_except GET {{ allow 10.0.0.5; deny all; }} dav_methods PUT; }}\n"
        "    location /broken/ {{ return 500; }} }} }}\n",
        home.string(), listen);
    process_ = ::fork();
    if (process_ == 0) {
      const std::string configuration = (home / "nginx.conf").string(), log = (home / "error.log").string();
      ::execlp("nginx", "nginx", "-e", log.c_str(), "-c", configuration.c_str(), nullptr);
      ::execl("/usr/sbin/nginx", "nginx", "-e", log.c_str(), "-c", configuration.c_str(), nullptr);
      ::_exit(127);
    }
    for (int attempt = 0; attempt < 100 && !answers(port_); ++attempt)
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    REQUIRE(answers(port_));
  }

  ::TemporaryFolder folder_;
  std::string protocol_;
  int port_;
  ::pid_t process_ = 0;
};

/// A busy test machine may be slow: only those who test patience have less of it.
constexpr std::chrono::milliseconds patient{10'000};

/// A machine with an empty cache that knows this remote one.
struct Machine {
  ::TemporaryFolder folder;
  CountingCompiler compiler;
  test::Messages messages;
  KernelCache kernels;

  explicit Machine(HttpCacheOptions remote, Jit jit = Jit::allow, bool has_compiler = true)
      : compiler{.identity = has_compiler ? std::optional(test::compiler_a) : std::nullopt},
        kernels({.folder = folder.path(), .jit = jit, .remote = make_http_cache(std::move(remote))},
                messages.callback(), compiler.toolchain()) {}

  void require(int number) { REQUIRE(kernels.get(spec_number(number))->cubin == expected_cubin(spec_number(number))); }
};

/// A cache with three kernels, pushed to the server.
void fill(const CommandLine& command, const Nginx& server, const std::string& options = "",
          const std::string& environment = "") {
  CountingCompiler compiler;
  KernelCache kernels({.folder = command.folder() / "cache"}, {}, compiler.toolchain());
  for (const int number : {1, 2, 3})
    kernels.get(spec_number(number));
  const auto pushed = command.run("cache push " + server.address() + " --json " + options, environment);
  CAPTURE(pushed.error);
  REQUIRE(pushed.status == 0);
  REQUIRE(pushed.json().at("entries") == 3);
}

double seconds_of(const std::function<void()>& work) {
  const auto start = Clock::now();
  work();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

} // namespace

TEST_CASE("what one machine pushed, another loads without compiling, and keeps on its disk") {
  if (Nginx::missing())
    return;
  const CommandLine command;
  const Nginx server;
  fill(command, server);
  Machine machine({.address = server.address(), .connect_patience = patient, .patience = patient});
  machine.require(1);
  machine.require(2);
  machine.require(7); // nobody has it: 404 is an answer, no failure
  machine.require(3);
  CHECK(machine.compiler.compiles == 1);
  CHECK(machine.kernels.statistics().remote_hits == 3);
  CHECK(machine.messages.all.empty());
  KernelCache again({.folder = machine.folder.path()}, {}, machine.compiler.toolchain());
  CHECK(again.get(spec_number(1))->origin == KernelOrigin::disk);

  Machine forbidden({.address = server.address(), .connect_patience = patient, .patience = patient},
                    Jit::forbid); // may not compile, may fetch
  forbidden.require(1);
  CHECK_THROWS_AS(forbidden.kernels.get(spec_number(7)), Error);
  Machine bare({.address = server.address(), .connect_patience = patient, .patience = patient}, Jit::allow,
               false); // no libnvrtc: the latest is served
  bare.require(2);
  CHECK(bare.kernels.statistics().remote_hits == 1);
}

TEST_CASE("a copied cache folder and an unpacked bundle serve as well as a pushed cache") {
  if (Nginx::missing())
    return;
  const CommandLine command;
  CountingCompiler compiler;
  KernelCache({.folder = command.folder() / "cache"}, {}, compiler.toolchain()).get(spec_number(1));
  REQUIRE(command.run("cache export bundle.tar.zst").status == 0);
  const auto serves = [&](const std::string& copying) {
    const Nginx server;
    CAPTURE(copying);
    REQUIRE(std::system(fmt::format("cd '{}' && {} '{}'", command.folder().string(), copying, server.files().string())
                            .c_str()) == 0);
    Machine machine({.address = server.address(), .connect_patience = patient, .patience = patient});
    machine.require(1);
    CHECK(machine.compiler.compiles == 0);
  };
  serves("cp -r cache/v1");
  serves("f() { cd \"$1\" && cmake -E tar xf \"$OLDPWD/bundle.tar.zst\"; }; f");
}

TEST_CASE("with a public key only what its counterpart signed is used") {
  if (Nginx::missing())
    return;
  const CommandLine command;
  make_keys(command, "key");
  make_keys(command, "foreign");
  const Nginx server;
  fill(command, server, "--sign key.pem");
  Machine good({.address = server.address(),
                .public_key = command.folder() / "key.pub",
                .connect_patience = patient,
                .patience = patient});
  good.require(1);
  CHECK(good.compiler.compiles == 0);
  Machine careless({.address = server.address(),
                    .connect_patience = patient,
                    .patience = patient}); // a signature does not disturb who checks none
  careless.require(1);
  CHECK(careless.compiler.compiles == 0);

  const auto is_refused = [&](const char* key) {
    Machine machine({.address = server.address(),
                     .public_key = command.folder() / key,
                     .connect_patience = patient,
                     .patience = patient});
    machine.require(1);
    machine.require(2); // left alone from the first refusal on
    CHECK(machine.compiler.compiles == 2);
    CHECK(machine.messages.about("left alone") == 1);
    CHECK(machine.kernels.statistics().remote_hits == 0);
  };
  is_refused("foreign.pub");
  fill(command, server); // unsigned now
  is_refused("key.pub");
  fill(command, server, "--sign key.pem");
  for (const auto& file : std::filesystem::recursive_directory_iterator(server.files() / "v1"))
    if (file.is_regular_file()) { // one bit in the cubin
      std::string bytes = CommandLine::read(file.path());
      bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
      std::ofstream(file.path(), std::ios::binary | std::ios::trunc) << bytes;
    }
  is_refused("key.pub");
  Machine unchecked({.address = server.address(),
                     .connect_patience = patient,
                     .patience = patient}); // the entry's own hash finds it, too
  unchecked.require(1);
  CHECK(unchecked.compiler.compiles == 1);
  CHECK(unchecked.messages.about("corrupt") == 1);
}

TEST_CASE("a server that is not there, fails or hangs costs a moment once, and nothing after that") {
  const Listener hanging;
  const auto is_left_alone = [](const std::string& address, double most_seconds) {
    Machine machine({.address = address}); // with the patience that everybody has
    CAPTURE(address);
    CHECK(seconds_of([&] { machine.require(1); }) < most_seconds);
    CHECK(seconds_of([&] {
            for (int number = 2; number < 12; ++number)
              machine.require(number);
          }) < 0.45); // less than one more wait
    CHECK(machine.messages.about("left alone") == 1);
    CHECK(machine.compiler.compiles == 11);
  };
  is_left_alone(fmt::format("http://127.0.0.1:{}", free_port()), 1);
  is_left_alone(fmt::format("http://127.0.0.1:{}", hanging.port()), 2);
  is_left_alone("file:///etc", 1); // another protocol than HTTP
  if (Nginx::missing())
    return;
  const Nginx server;
  is_left_alone(server.address() + "/broken", 1);
  const CommandLine command;
  {
    CountingCompiler compiler;
    KernelCache({.folder = command.folder() / "cache"}, {}, compiler.toolchain()).get(spec_number(1));
  }
  check_error(command.run("cache push " + server.address() + "/broken"), 1, "cache_corrupt", "status");
  check_error(command.run("cache push " + server.address() + "/others"), 1, "cache_corrupt", "403");
}

TEST_CASE("a server over https is used where its certificate is trusted, and only there") {
  if (Nginx::missing())
    return;
  const CommandLine command;
  const auto server = Nginx::encrypted("IP:127.0.0.1");
  make_keys(command, "key");
  const std::string trusting = fmt::format("TILEWRIGHT_CACHE_AUTHORITIES='{}'", server->authority().string());
  check_error(command.run("cache push " + server->address()), 1, "invalid_argument", "cache"); // nothing to push yet
  fill(command, *server, "--sign key.pem", trusting);
  check_error(command.run("cache push " + server->address()), 1, "cache_corrupt", "certificate");

  const auto machine = [&](const std::string& address, const std::filesystem::path& authorities) {
    return std::make_unique<Machine>(HttpCacheOptions{.address = address,
                                                      .public_key = command.folder() / "key.pub",
                                                      .authorities = authorities,
                                                      .connect_patience = patient,
                                                      .patience = patient});
  };
  const auto good = machine(server->address(), server->authority());
  for (const int number : {1, 2, 3})
    good->require(number);
  CHECK(good->compiler.compiles == 0);
  CHECK(good->kernels.statistics().remote_hits == 3);
  CHECK(good->messages.all.empty());

  const auto is_refused = [&](const std::string& address, const std::filesystem::path& authorities) {
    const auto wary = machine(address, authorities);
    CAPTURE(address);
    wary->require(1);
    wary->require(2); // compiled: left alone from the first refusal on
    CHECK(wary->compiler.compiles == 2);
    CHECK(wary->messages.about("left alone") == 1);
    CHECK(wary->kernels.statistics().remote_hits == 0);
  };
  is_refused(server->address(), {}); // the system knows nothing of our authority
  const auto elsewhere = Nginx::encrypted("DNS:elsewhere.example");
  is_refused(server->address(), elsewhere->authority());    // another authority of the same name
  is_refused(elsewhere->address(), elsewhere->authority()); // a sound certificate, but of another host
  is_refused(server->address(), command.folder() / "missing.pem");
}

TEST_CASE("a cluster from end to end: push over https, then a machine without libnvrtc and with jit=forbid") {
  if (Nginx::missing())
    return;
  const CommandLine command;
  const std::string problem = "compile attention_forward:pattern=dense,edges=full,head_dim=64 --arch sm_80 --json";
  if (const auto built = command.run(problem); built.status != 0) {
    MESSAGE("SKIP: no NVRTC here: " << built.error);
    return;
  }
  const auto server = Nginx::encrypted("IP:127.0.0.1");
  make_keys(command, "key");
  const std::string trusting = fmt::format("TILEWRIGHT_CACHE_AUTHORITIES='{}'", server->authority().string());
  REQUIRE(command.run("cache push " + server->address() + " --sign key.pem", trusting).status == 0);
  const std::string bare = fmt::format("{} TILEWRIGHT_CACHE='{}' TILEWRIGHT_NVRTC=/nowhere TILEWRIGHT_JIT=forbid ",
                                       trusting, (command.folder() / "other machine").string());
  check_error(command.run(problem, bare), 1, "jit_forbidden", "tilewright compile");
  const std::string member = fmt::format("{} TILEWRIGHT_CACHE_REMOTE={} TILEWRIGHT_CACHE_PATIENCE=10000 "
                                         "TILEWRIGHT_CACHE_PUBLIC_KEY='{}'",
                                         bare, server->address(), (command.folder() / "key.pub").string());
  const auto fetched = command.run(problem, member);
  CAPTURE(fetched.error);
  REQUIRE(fetched.status == 0);
  CHECK(fetched.json().at("cached") == true);
  CHECK(fetched.error.empty());
  check_error(command.run(problem, member + " TILEWRIGHT_CACHE_PATIENCE=soon"), 1, "invalid_argument", "soon");
}
