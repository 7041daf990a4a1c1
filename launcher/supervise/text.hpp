#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace pitcrew::launcher {

// The last bytes of a stream. Single-threaded.
class Tail {
 public:
  explicit Tail(size_t limit = 64 * 1024) : limit_(limit) {}
  void append(std::string_view bytes);
  std::string_view view() const { return std::string_view(buffer_).substr(start_); }
  uint64_t total() const { return total_; }
  // What came after the first `position` bytes of the stream, as far as it is still here.
  std::string_view since(uint64_t position) const;

 private:
  size_t limit_;
  std::string buffer_;
  size_t start_ = 0;
  uint64_t total_ = 0;
};

// The text with every byte that isn't UTF-8, and every control character but tab and line feed, replaced by '?':
// messages and logs are JSON.
std::string clean_text(std::string_view text);

// At most `bytes` of the text, cut before a character, with a word that it was cut.
std::string shorten(std::string text, size_t bytes);

// The last lines, at most `count` and `bytes` in all, clean.
std::vector<std::string> last_lines(std::string_view text, size_t count = 20, size_t bytes = 4096);

// The line that names the last exception in a program's output, or empty: a Python traceback's last line, what() of a
// C++ exception that nobody caught, a failed assertion, a Rust panic. Numbers that differ from run to run (addresses)
// are replaced, so that the same failure reads the same.
std::string last_exception(std::string_view text);

}  // namespace pitcrew::launcher
