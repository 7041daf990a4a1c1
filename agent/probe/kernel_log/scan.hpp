#pragma once

#include <charconv>
#include <optional>
#include <string>
#include <string_view>

namespace pitcrew::agent::kernel_log {

// Walks over a line from left to right; what isn't there leaves it where it was.
class Scan {
 public:
  explicit Scan(std::string_view text) : rest_(text) {}

  std::string_view rest() const { return rest_; }
  bool skip(std::string_view literal) {
    if (!rest_.starts_with(literal)) return false;
    rest_.remove_prefix(literal.size());
    return true;
  }
  void spaces() {
    while (!rest_.empty() && (rest_.front() == ' ' || rest_.front() == '\t')) rest_.remove_prefix(1);
  }
  // Moves behind the next `literal`; false where there is none.
  bool past(std::string_view literal) {
    const size_t at = rest_.find(literal);
    if (at == std::string_view::npos) return false;
    rest_.remove_prefix(at + literal.size());
    return true;
  }
  // Everything before any of `ends`, which stays.
  std::string_view until(std::string_view ends) {
    const size_t at = rest_.find_first_of(ends);
    const std::string_view text = rest_.substr(0, at);
    rest_.remove_prefix(text.size());
    return text;
  }
  std::optional<uint32_t> number(int base = 10) {
    uint32_t value = 0;
    const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), value, base);
    if (error != std::errc()) return std::nullopt;
    rest_.remove_prefix(static_cast<size_t>(end - rest_.data()));
    return value;
  }
  // 0x1f
  std::optional<uint32_t> hex() {
    const std::string_view before = rest_;
    if (skip("0x") || skip("0X")) {
      if (const auto value = number(16)) return value;
    }
    rest_ = before;
    return std::nullopt;
  }

 private:
  std::string_view rest_;
};

// At most `limit` bytes, control bytes and bytes that are not ASCII as '?'.
inline std::string printable(std::string_view text, size_t limit = 256) {
  std::string out(text.substr(0, limit));
  for (char& c : out) {
    if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) > 0x7e) c = '?';
  }
  return out;
}

}  // namespace pitcrew::agent::kernel_log
