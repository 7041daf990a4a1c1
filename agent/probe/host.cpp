#include "agent/probe/host.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <utility>

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

namespace pitcrew::agent {
namespace {

Error failed(std::string_view what, const std::string& path, int error) {
  Code code = Code::kUnavailable;
  if (error == ENOENT || error == ENOTDIR || error == ENODEV) code = Code::kNotFound;
  if (error == EACCES || error == EPERM) code = Code::kForbidden;
  return Error(code, std::string(what) + " " + path + ": " + std::strerror(error));
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace(" \t\r\n\v\f\0", 7);
  const size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

Result<std::string> read_at(int folder, const std::string& name, const std::string& shown, size_t limit) {
  const int fd = ::openat(folder, name.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return failed("open", shown, errno);
  std::string text(limit, '\0');
  size_t length = 0;
  int error = 0;
  while (length < limit) {
    const ssize_t got = ::read(fd, text.data() + length, limit - length);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) error = errno;
    if (got <= 0) break;
    length += static_cast<size_t>(got);
  }
  ::close(fd);
  if (error != 0) return failed("read", shown, error);
  return std::string(trimmed(std::string_view(text).substr(0, length)));
}

}  // namespace

HostPaths HostPaths::under(const std::string& folder) { return {folder + "/proc", folder + "/sys", folder}; }

Result<Folder> Folder::open(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return failed("open", path, errno);
  return Folder(fd, path);
}

Folder::~Folder() {
  if (fd_ >= 0) ::close(fd_);
}

Folder::Folder(Folder&& other) noexcept : fd_(std::exchange(other.fd_, -1)), path_(std::move(other.path_)) {}

Folder& Folder::operator=(Folder&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(path_, other.path_);
  return *this;
}

Result<Folder> Folder::folder(const std::string& name) const {
  std::string path = path_ + "/" + name;
  const int fd = ::openat(fd_, name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return failed("open", path, errno);
  return Folder(fd, std::move(path));
}

std::vector<std::string> Folder::entries() const {
  std::vector<std::string> names;
  // A descriptor of its own: reading a folder moves a position, and another thread may read it too.
  const int fd = ::openat(fd_, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return names;
  DIR* folder = ::fdopendir(fd);
  if (folder == nullptr) {
    ::close(fd);
    return names;
  }
  while (const dirent* entry = ::readdir(folder)) {
    if (entry->d_name[0] == '.') continue;
    names.emplace_back(entry->d_name);
    if (names.size() == kMaxEntries) break;
  }
  ::closedir(folder);
  std::sort(names.begin(), names.end());
  return names;
}

Result<std::string> Folder::text(const std::string& name, size_t limit) const {
  return read_at(fd_, name, path_ + "/" + name, limit);
}

std::optional<double> Folder::number(const std::string& name) const {
  const auto content = text(name, 64);
  return content ? parse_number(*content) : std::nullopt;
}

Result<std::string> read_text(const std::string& path, size_t limit) { return read_at(AT_FDCWD, path, path, limit); }

std::optional<double> parse_number(std::string_view text) {
  text = trimmed(text);
  if (text.starts_with("0x") || text.starts_with("0X")) {
    text.remove_prefix(2);
    unsigned long long value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
    if (error != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
    return static_cast<double>(value);
  }
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  // from_chars takes "inf" and "nan" too.
  if (!(value > -1e300 && value < 1e300)) return std::nullopt;
  return value;
}

std::vector<std::string_view> split_words(std::string_view text, size_t limit) {
  std::vector<std::string_view> words;
  size_t at = 0;
  while (words.size() < limit) {
    at = text.find_first_not_of(" \t\r\n", at);
    if (at == std::string_view::npos) break;
    const size_t end = std::min(text.find_first_of(" \t\r\n", at), text.size());
    words.push_back(text.substr(at, end - at));
    at = end;
  }
  return words;
}

std::vector<std::string_view> split_lines(std::string_view text, size_t limit) {
  std::vector<std::string_view> lines;
  while (!text.empty() && lines.size() < limit) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    if (line.ends_with('\r')) line.remove_suffix(1);
    lines.push_back(line);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  }
  return lines;
}

std::string printable(std::string_view text, size_t limit) {
  std::string out;
  for (const char c : text.substr(0, limit)) out += c >= 0x20 && c <= 0x7e ? c : ' ';
  return out;
}

}  // namespace pitcrew::agent
