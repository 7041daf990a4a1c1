#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/result.hpp"

namespace pitcrew::agent {

// Where the machine's file systems are seen: a container has them mounted elsewhere, a test has a tree of its own.
struct HostPaths {
  std::string proc = "/proc";
  std::string sys = "/sys";
  std::string root = "/";  // the machine's own files: /opt/amazon, mount points

  // proc/, sys/ and the rest below one folder.
  static HostPaths under(const std::string& folder);
};

// A folder of procfs or sysfs, held open, so that many small files are read without walking the path each time. Any
// thread may read; closed by the destructor.
class Folder {
 public:
  static constexpr size_t kMaxEntries = 4096;

  // kNotFound where it is absent; kForbidden where it may not be read.
  static Result<Folder> open(const std::string& path);
  ~Folder();
  Folder(Folder&& other) noexcept;
  Folder& operator=(Folder&& other) noexcept;

  Result<Folder> folder(const std::string& name) const;
  // The names in it, sorted; nothing where they can't be listed, and no more than kMaxEntries.
  std::vector<std::string> entries() const;
  // At most `limit` bytes of a file, without white space at its ends.
  Result<std::string> text(const std::string& name, size_t limit = 4096) const;
  // Nothing where the file is absent, unreadable or no number.
  std::optional<double> number(const std::string& name) const;
  const std::string& path() const { return path_; }

 private:
  Folder(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}

  int fd_ = -1;
  std::string path_;
};

// The same for one file by its path.
Result<std::string> read_text(const std::string& path, size_t limit = 64 * 1024);

// One whole number or decimal, or 0x…; nothing where anything else is there too.
std::optional<double> parse_number(std::string_view text);

// Words between white space.
std::vector<std::string_view> split_words(std::string_view text, size_t limit = 64);
// Lines without their ends; `limit` is how many are taken.
std::vector<std::string_view> split_lines(std::string_view text, size_t limit = 4096);

// What is printable of a text from outside, and no longer than `limit`.
std::string printable(std::string_view text, size_t limit);

}  // namespace pitcrew::agent
