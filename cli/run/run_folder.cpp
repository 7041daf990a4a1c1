#include "cli/run/run_folder.hpp"

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "lib/base/digest.hpp"
#include "lib/base/file.hpp"

namespace pitcrew::cli {
namespace {

namespace fs = std::filesystem;

// Below this, /dev/shm is the 64 MiB of a container and not meant for checkpoints.
constexpr uint64_t kEnoughMemory = 256ull << 20;

uint64_t free_bytes(const char* path) {
  struct statvfs stats {};
  if (statvfs(path, &stats) != 0) return 0;
  return static_cast<uint64_t>(stats.f_bavail) * stats.f_frsize;
}

// Two runs never share memory: the folder's path names it.
std::string memory_folder(const std::string& path) {
  const std::string name = "pitcrew-" + std::to_string(getuid()) + "-" + hex64(xxh3(path));
  std::error_code ignored;
  fs::remove_all("/dev/shm/" + name, ignored);
  fs::remove_all(path + "/memory", ignored);
  return free_bytes("/dev/shm") >= kEnoughMemory ? "/dev/shm/" + name : path + "/memory";
}

Result<int> take_lock(const std::string& path) {
  const std::string file = path + "/lock";
  const int fd = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) return errno_error("open " + file, errno);
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    char holder[32] = {};
    const ssize_t length = pread(fd, holder, sizeof holder - 1, 0);
    close(fd);
    return Error(Code::kAlreadyExists, path + " is in use by another pitcrew run" +
                                           (length > 0 ? " (process " + std::string(holder) + ")" : std::string()) +
                                           "; wait for it, stop it, or give this one a folder of its own with --dir");
  }
  const std::string self = std::to_string(getpid());
  if (ftruncate(fd, 0) != 0 || pwrite(fd, self.data(), self.size(), 0) < 0) {
    const int number = errno;
    close(fd);
    return errno_error("write " + file, number);
  }
  return fd;
}

}  // namespace

Result<RunFolder> RunFolder::open(const std::string& path) {
  RunFolder folder;
  std::error_code error;
  fs::create_directories(path, error);
  if (error)
    return Error(Code::kForbidden,
                 "make the folder " + path + ": " + error.message() + "; choose another one with --dir");
  folder.path_ = fs::canonical(path, error).string();
  if (error) return Error(Code::kForbidden, "find the folder " + path + ": " + error.message());
  PITCREW_ASSIGN(folder.lock_, take_lock(folder.path_));
  folder.run_id_ = hex64(xxh3(folder.path_ + "#" + std::to_string(getpid())));
  folder.memory_ = memory_folder(folder.path_);
  for (const std::string& below : {folder.logs(), folder.volumes(), folder.memory_}) {
    fs::create_directories(below, error);
    if (error) return Error(Code::kForbidden, "make the folder " + below + ": " + error.message());
  }
  // Pods of a run that was killed are gone; so is what their nodes kept of them.
  fs::remove_all(folder.nodes(), error);
  fs::create_directories(folder.nodes(), error);
  return folder;
}

RunFolder::RunFolder(RunFolder&& other) noexcept
    : path_(std::move(other.path_)),
      memory_(std::move(other.memory_)),
      run_id_(std::move(other.run_id_)),
      lock_(std::exchange(other.lock_, -1)) {}

RunFolder::~RunFolder() {
  if (lock_ < 0) return;
  std::error_code ignored;
  fs::remove_all(memory_, ignored);
  close(lock_);
}

Result<Json> RunFolder::load_objects() const {
  std::ifstream in(objects());
  if (!in) return Json(nullptr);
  std::stringstream text;
  text << in.rdbuf();
  auto json = parse_json(text.str());
  if (!json) return json.error().with_context(objects() + " is damaged; move it away to start the job anew");
  return json;
}

Status RunFolder::save_objects(const Json& snapshot) const {
  return replace_file(posix_file_system(), objects(), snapshot.dump());
}

}  // namespace pitcrew::cli
