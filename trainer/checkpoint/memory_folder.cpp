#include "trainer/checkpoint/memory_folder.hpp"

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/base/file.hpp"

namespace pitcrew::trainer {
namespace fs = std::filesystem;

Result<SnapshotMemory> SnapshotMemory::anonymous(uint64_t bytes) {
  void* data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED)
    return errno_error("reserve " + std::to_string(bytes) + " bytes of memory for a checkpoint", errno);
  SnapshotMemory memory;
  memory.data_ = static_cast<std::byte*>(data);
  memory.bytes_ = bytes;
  return memory;
}

Result<SnapshotMemory> SnapshotMemory::file(const std::string& path, uint64_t bytes) {
  return map_file(path, bytes, true);
}

Result<SnapshotMemory> SnapshotMemory::file_without_pages(const std::string& path, uint64_t bytes) {
  return map_file(path, bytes, false);
}

Status SnapshotMemory::take_pages() {
  if (!path_.empty()) {
    const std::string what = "reserve " + std::to_string(bytes_) + " bytes at " + path_;
    const int fd = ::open(path_.c_str(), O_RDWR | O_CLOEXEC);
    if (fd < 0) return errno_error(what, errno);
    const int number = ::posix_fallocate(fd, 0, static_cast<off_t>(bytes_));
    ::close(fd);
    if (number != 0) return errno_error(what, number);
  }
  constexpr int kPopulateWrite = 23;  // MADV_POPULATE_WRITE, Linux 5.14; older ones take each page when it is written
  (void)::madvise(data_, bytes_, kPopulateWrite);
  return {};
}

Result<SnapshotMemory> SnapshotMemory::map_file(const std::string& path, uint64_t bytes, bool allocate) {
  const std::string what = "reserve " + std::to_string(bytes) + " bytes at " + path;
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return errno_error(what, errno);
  // Not only sized but allocated: a file in memory that can't grow later would end the process by SIGBUS.
  void* data = MAP_FAILED;
  int number = 0;
  if (allocate) {
    number = ::posix_fallocate(fd, 0, static_cast<off_t>(bytes));
  } else if (::ftruncate(fd, static_cast<off_t>(bytes)) != 0) {
    number = errno;
  }
  if (number == 0) data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  const int map_number = errno;
  ::close(fd);
  if (data == MAP_FAILED) {
    ::unlink(path.c_str());
    return errno_error(what, number != 0 ? number : map_number);
  }
  SnapshotMemory memory;
  memory.data_ = static_cast<std::byte*>(data);
  memory.bytes_ = bytes;
  memory.reserved_ = memory.path_ = path;
  return memory;
}

SnapshotMemory::SnapshotMemory(SnapshotMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)),
      reserved_(std::exchange(other.reserved_, {})),
      path_(std::exchange(other.path_, {})) {}

SnapshotMemory& SnapshotMemory::operator=(SnapshotMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  std::swap(reserved_, other.reserved_);
  std::swap(path_, other.path_);
  return *this;
}

SnapshotMemory::~SnapshotMemory() {
  if (data_ == nullptr) return;
  ::munmap(data_, bytes_);
  if (!path_.empty() && path_ == reserved_) ::unlink(path_.c_str());
}

Status SnapshotMemory::move_to(const std::string& path) {
  if (path == path_) return {};
  if (::rename(path_.c_str(), path.c_str()) != 0) return errno_error("rename " + path_ + " to " + path, errno);
  path_ = path;
  return {};
}

std::string MemoryFolder::own(const std::string& checkpoint, const std::string& file) const {
  return join_path(path_, "own/" + checkpoint + "/" + file);
}

std::string MemoryFolder::reserve(uint32_t local_rank, size_t index) const {
  return join_path(path_, "reserve/rank-" + std::to_string(local_rank) + "-" + std::to_string(index));
}

Result<uint64_t> MemoryFolder::free_bytes() const { return posix_file_system().free_bytes(path_); }

Status MemoryFolder::prepare() const {
  FileSystem& files = posix_file_system();
  for (const char* folder : {"", "own", "peer", "counted", "fetch", "reserve"})
    PITCREW_TRY(files.make_folder(join_path(path_, folder)));
  return {};
}

std::map<std::string, std::vector<std::string>> MemoryFolder::holdings() const {
  std::map<std::string, std::vector<std::string>> found;
  FileSystem& files = posix_file_system();
  const auto add = [&](const std::string& below) {
    const auto checkpoints = files.list(join_path(path_, below));
    if (!checkpoints) return;
    for (const auto& checkpoint : *checkpoints) {
      const std::string relative = join_path(below, checkpoint.name);
      const auto inner = files.list(join_path(path_, relative));
      if (!checkpoint.folder || !inner) continue;
      for (const auto& file : *inner) found[checkpoint.name].push_back(join_path(relative, file.name));
    }
  };
  add("own");
  if (const auto slots = files.list(join_path(path_, "peer"))) {
    for (const auto& slot : *slots) add("peer/" + slot.name);
  }
  return found;
}

std::vector<std::string> MemoryFolder::own_checkpoints() const {
  std::vector<std::string> names;
  if (const auto entries = posix_file_system().list(join_path(path_, "own"))) {
    for (const auto& entry : *entries) names.push_back(entry.name);
  }
  return names;
}

Status MemoryFolder::make_checkpoint(const std::string& checkpoint) const {
  return posix_file_system().make_folder(join_path(path_, "own/" + checkpoint));
}

Status MemoryFolder::write_small(const std::string& relative, std::string_view content) const {
  FileSystem& files = posix_file_system();
  const std::string path = join_path(path_, relative), temporary = path + ".tmp";
  {
    PITCREW_ASSIGN(const auto file, files.open(temporary, FileSystem::Open::kCreate));
    PITCREW_TRY(file->write(std::as_bytes(std::span(content)), 0));
  }
  return files.rename(temporary, path);
}

Status MemoryFolder::mark_counted(const std::string& checkpoint) const {
  return posix_file_system().make_folder(join_path(path_, "counted/" + checkpoint));
}

void MemoryFolder::remove_checkpoint(const std::string& checkpoint) const {
  std::error_code ignored;  // what can't be removed now is removed by the next epoch
  fs::remove_all(join_path(path_, "counted/" + checkpoint), ignored);
  fs::remove_all(join_path(path_, "own/" + checkpoint), ignored);
}

void MemoryFolder::remove_reserve(uint32_t local_rank) const {
  const auto entries = posix_file_system().list(join_path(path_, "reserve"));
  if (!entries) return;
  const std::string prefix = "rank-" + std::to_string(local_rank) + "-";
  for (const auto& entry : *entries) {
    if (entry.name.starts_with(prefix)) ::unlink(join_path(path_, "reserve/" + entry.name).c_str());
  }
}

}  // namespace pitcrew::trainer
