#include "lib/base/file.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

namespace pitcrew {
namespace {

Error failed(std::string_view what, const std::string& path, int number) {
  return errno_error(std::string(what) + " " + path, number);
}

class PosixFile final : public File {
 public:
  PosixFile(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  ~PosixFile() override { ::close(fd_); }

  Status write(std::span<const std::byte> data, uint64_t offset) override {
    while (!data.empty()) {
      const ssize_t n = ::pwrite(fd_, data.data(), data.size(), static_cast<off_t>(offset));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return failed("write", path_, errno);
      if (n == 0) return failed("write", path_, ENOSPC);
      data = data.subspan(static_cast<size_t>(n));
      offset += static_cast<uint64_t>(n);
    }
    return {};
  }

  Status read(std::span<std::byte> data, uint64_t offset) const override {
    while (!data.empty()) {
      const ssize_t n = ::pread(fd_, data.data(), data.size(), static_cast<off_t>(offset));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return failed("read", path_, errno);
      if (n == 0) {
        return Error(Code::kDataLoss, "read " + path_ + ": it ends at byte " + std::to_string(offset) + ", " +
                                          std::to_string(data.size()) + " bytes too early (the file is cut off)");
      }
      data = data.subspan(static_cast<size_t>(n));
      offset += static_cast<uint64_t>(n);
    }
    return {};
  }

  Result<uint64_t> size() const override {
    struct stat info {};
    if (::fstat(fd_, &info) != 0) return failed("stat", path_, errno);
    return static_cast<uint64_t>(info.st_size);
  }

  Status sync() override {
    if (::fsync(fd_) != 0) return failed("sync", path_, errno);
    return {};
  }

 private:
  const int fd_;
  const std::string path_;
};

class PosixFileSystem final : public FileSystem {
 public:
  Result<std::unique_ptr<File>> open(const std::string& path, Open how) override {
    const int flags = how == Open::kRead ? O_RDONLY : how == Open::kCreate ? O_RDWR | O_CREAT | O_TRUNC : O_RDWR;
    int fd = -1;
    do {
      fd = ::open(path.c_str(), flags | O_CLOEXEC, 0644);
    } while (fd < 0 && errno == EINTR);
    if (fd < 0) return failed("open", path, errno);
    return std::unique_ptr<File>(new PosixFile(fd, path));
  }

  Status make_folder(const std::string& path) override {
    if (::mkdir(path.c_str(), 0755) == 0) return {};
    const int number = errno;
    struct stat info {};
    if (number == EEXIST && ::stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode)) return {};
    return failed("make folder", path, number);
  }

  Status rename(const std::string& from, const std::string& to) override {
    if (::rename(from.c_str(), to.c_str()) != 0) return failed("rename " + from + " to", to, errno);
    return {};
  }

  Status link(const std::string& from, const std::string& to) override {
    if (::link(from.c_str(), to.c_str()) != 0) return failed("link " + from + " to", to, errno);
    return {};
  }

  Result<std::vector<Entry>> list(const std::string& folder) override {
    DIR* handle = ::opendir(folder.c_str());
    if (handle == nullptr) return failed("list", folder, errno);
    std::vector<Entry> entries;
    errno = 0;
    while (const dirent* item = ::readdir(handle)) {
      const std::string name = item->d_name;
      if (name == "." || name == "..") continue;
      struct stat info {};
      if (::fstatat(::dirfd(handle), item->d_name, &info, AT_SYMLINK_NOFOLLOW) == 0) {
        entries.push_back({name, S_ISDIR(info.st_mode), static_cast<uint64_t>(info.st_size)});
      }
      errno = 0;
    }
    const int number = errno;
    ::closedir(handle);
    if (number != 0) return failed("list", folder, number);
    std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.name < b.name; });
    return entries;
  }

  Status remove(const std::string& path) override {
    if (::unlink(path.c_str()) != 0) return failed("remove", path, errno);
    return {};
  }

  Status remove_folder(const std::string& path) override {
    if (::rmdir(path.c_str()) != 0) return failed("remove folder", path, errno);
    return {};
  }

  Status sync_folder(const std::string& folder) override {
    const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return failed("open folder", folder, errno);
    const int result = ::fsync(fd);
    const int number = errno;
    ::close(fd);
    if (result != 0) return failed("sync folder", folder, number);
    return {};
  }

  Result<uint64_t> free_bytes(const std::string& path) override {
    struct statvfs info {};
    if (::statvfs(path.c_str(), &info) != 0) return failed("ask for the free space of", path, errno);
    return static_cast<uint64_t>(info.f_bavail) * info.f_frsize;
  }
};

}  // namespace

FileSystem& posix_file_system() {
  static PosixFileSystem files;
  return files;
}

Result<std::string> read_file(FileSystem& files, const std::string& path, uint64_t limit) {
  PITCREW_ASSIGN(const auto file, files.open(path, FileSystem::Open::kRead));
  PITCREW_ASSIGN(const uint64_t size, file->size());
  if (size > limit) {
    return Error(Code::kDataLoss, "read " + path + ": " + std::to_string(size) + " bytes, more than the " +
                                      std::to_string(limit) + " that such a file may have");
  }
  std::string content(size, '\0');
  PITCREW_TRY(file->read(std::as_writable_bytes(std::span(content)), 0));
  return content;
}

Status make_folders(FileSystem& files, const std::string& path) {
  if (path.empty() || path == "." || path == "/" || files.list(path)) return {};
  const std::string parent = folder_of(path);
  PITCREW_TRY(make_folders(files, parent));
  PITCREW_TRY(files.make_folder(path));
  return files.sync_folder(parent);
}

Status replace_file(FileSystem& files, const std::string& path, std::string_view content) {
  const std::string temporary = path + ".tmp";
  {
    PITCREW_ASSIGN(const auto file, files.open(temporary, FileSystem::Open::kCreate));
    PITCREW_TRY(file->write(std::as_bytes(std::span(content)), 0));
    PITCREW_TRY(file->sync());
  }
  PITCREW_TRY(files.rename(temporary, path));
  return files.sync_folder(folder_of(path));
}

std::string join_path(std::string_view folder, std::string_view name) {
  std::string path(folder);
  if (!path.empty() && path.back() != '/') path += '/';
  return path.append(name);
}

std::string folder_of(std::string_view path) {
  while (path.size() > 1 && path.back() == '/') path.remove_suffix(1);
  const size_t slash = path.rfind('/');
  if (slash == std::string_view::npos) return ".";
  return std::string(path.substr(0, slash == 0 ? 1 : slash));
}

}  // namespace pitcrew
