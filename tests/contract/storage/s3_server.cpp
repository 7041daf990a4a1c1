#include "tests/contract/storage/s3_server.hpp"

#include <csignal>
#include <filesystem>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/config_file.hpp"

namespace pitcrew::trainer::testing {
namespace {

namespace fs = std::filesystem;

constexpr char kId[] = "pitcrew-test";
constexpr char kSecret[] = "a secret of the tests";

std::string& reason() {
  static std::string text;
  return text;
}

sockaddr_in local(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

uint16_t free_port() {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = local(0);
  socklen_t size = sizeof address;
  const bool bound = ::bind(fd, reinterpret_cast<const sockaddr*>(&address), size) == 0 &&
                     ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0;
  ::close(fd);
  return bound ? ntohs(address.sin_port) : 0;
}

bool listens(uint16_t port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const sockaddr_in address = local(port);
  const bool connected = ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  ::close(fd);
  return connected;
}

}  // namespace

S3Server* S3Server::shared() {
  static const std::unique_ptr<S3Server> kServer = []() -> std::unique_ptr<S3Server> {
    const std::string cache = environment_or("XDG_CACHE_HOME", environment_or("HOME", "") + "/.cache");
    const std::string program = cache + "/pitcrew/cluster/versitygw-" PITCREW_VERSITYGW "/versitygw";
    if (!fs::exists(program)) {
      reason() = "not run: no S3 server at " + program + "; tests/cluster/cluster build versitygw builds it";
      return nullptr;
    }
    std::unique_ptr<S3Server> server(new S3Server);
    if (!server->start(program)) return nullptr;
    return server;
  }();
  return kServer.get();
}

std::string S3Server::why_not() { return reason(); }

bool S3Server::start(const std::string& program) {
  folder_.make(std::string("root/") + kBucket);
  folder_.make("sidecar");
  port_ = free_port();
  const std::string address = "127.0.0.1:" + std::to_string(port_), log = folder_.path() + "/log";
  const std::string root = folder_.path() + "/root", sidecar = folder_.path() + "/sidecar";
  pid_ = ::fork();
  if (pid_ == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    const int fd = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
    ::dup2(fd, 1);
    ::dup2(fd, 2);
    // Metadata in files: not every file system of a temporary folder has extended attributes.
    ::execl(program.c_str(), program.c_str(), "--port", address.c_str(), "--access", kId, "--secret", kSecret,
            "--quiet", "posix", "--sidecar", sidecar.c_str(), root.c_str(), nullptr);
    ::_exit(127);
  }
  for (int i = 0; i < 600; ++i) {
    if (listens(port_)) return true;
    if (::waitpid(pid_, nullptr, WNOHANG) != 0) break;
    ::poll(nullptr, 0, 50);
  }
  auto said = read_file(posix_file_system(), log, 1 << 20);
  reason() = "the S3 server did not start: " + (said ? *said : said.error().message);
  return false;
}

S3Server::~S3Server() {
  if (pid_ > 0) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
}

std::map<std::string, std::string> S3Server::environment(uint16_t port) const {
  return {{"AWS_ACCESS_KEY_ID", kId},
          {"AWS_SECRET_ACCESS_KEY", kSecret},
          {"AWS_REGION", "us-east-1"},
          {"AWS_ENDPOINT_URL_S3", "http://127.0.0.1:" + std::to_string(port == 0 ? port_ : port)}};
}

s3::Variables S3Server::variables(uint16_t port) const { return variables_of(environment(port)); }

std::string S3Server::new_path() {
  return std::string("s3://") + kBucket + "/" + std::to_string(::getpid()) + "/" + std::to_string(++paths_);
}

s3::Variables variables_of(std::map<std::string, std::string> set) {
  return [set = std::move(set)](const char* name) {
    const auto found = set.find(name);
    return found == set.end() ? std::string() : found->second;
  };
}

}  // namespace pitcrew::trainer::testing
