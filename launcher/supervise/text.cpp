#include "launcher/supervise/text.hpp"

#include <algorithm>
#include <cctype>

namespace pitcrew::launcher {
namespace {

constexpr std::string_view kCut = "\n… (cut)";

// The length of the UTF-8 character at the front, or 0 where there is none (RFC 3629, 4).
size_t character_length(std::string_view text) {
  const auto byte = [&](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  const auto continues = [&](size_t i) { return (byte(i) & 0xC0) == 0x80; };
  const unsigned first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF) return continues(1) ? 2 : 0;
  if (first >= 0xE0 && first <= 0xEF) {
    if (first == 0xE0 && byte(1) < 0xA0) return 0;
    if (first == 0xED && byte(1) > 0x9F) return 0;
    return continues(1) && continues(2) ? 3 : 0;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    if (first == 0xF0 && byte(1) < 0x90) return 0;
    if (first == 0xF4 && byte(1) > 0x8F) return 0;
    return continues(1) && continues(2) && continues(3) ? 4 : 0;
  }
  return 0;
}

std::vector<std::string_view> split_lines(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    lines.push_back(line);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

bool starts_with_name(std::string_view line) {
  if (line.empty() || !(std::isalpha(static_cast<unsigned char>(line[0])) || line[0] == '_')) return false;
  size_t i = 0;
  while (i < line.size() && (std::isalnum(static_cast<unsigned char>(line[i])) || line[i] == '_' || line[i] == '.'))
    ++i;
  return i == line.size() || line[i] == ':';
}

// "at 0x7f3c…" and "0x55…": an address is another one in every run.
std::string without_addresses(std::string_view line) {
  std::string out;
  for (size_t i = 0; i < line.size();) {
    if (line.substr(i).starts_with("0x") && i + 2 < line.size() &&
        std::isxdigit(static_cast<unsigned char>(line[i + 2]))) {
      out += "0x…";
      i += 2;
      while (i < line.size() && std::isxdigit(static_cast<unsigned char>(line[i]))) ++i;
    } else {
      out += line[i++];
    }
  }
  return out;
}

}  // namespace

void Tail::append(std::string_view bytes) {
  total_ += bytes.size();
  if (bytes.size() >= limit_) {
    buffer_.assign(bytes.substr(bytes.size() - limit_));
    start_ = 0;
    return;
  }
  buffer_.append(bytes);
  if (buffer_.size() - start_ > limit_) start_ = buffer_.size() - limit_;
  // Moving the bytes down at every append would cost more than the forwarding itself.
  if (start_ >= limit_) {
    buffer_.erase(0, start_);
    start_ = 0;
  }
}

std::string_view Tail::since(uint64_t position) const {
  const std::string_view all = view();
  if (position >= total_) return {};
  return all.substr(all.size() - std::min<uint64_t>(all.size(), total_ - position));
}

std::string clean_text(std::string_view text) {
  std::string clean;
  clean.reserve(text.size());
  while (!text.empty()) {
    const size_t length = character_length(text);
    const unsigned char first = static_cast<unsigned char>(text[0]);
    if (length == 0 || (first < 0x20 && first != '\t' && first != '\n') || first == 0x7F) {
      clean += '?';
      text.remove_prefix(1);
      continue;
    }
    clean.append(text.substr(0, length));
    text.remove_prefix(length);
  }
  return clean;
}

std::string shorten(std::string text, size_t bytes) {
  if (text.size() <= bytes) return text;
  size_t end = bytes > kCut.size() ? bytes - kCut.size() : 0;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  text.resize(end);
  if (bytes > kCut.size()) text += kCut;
  return text;
}

std::vector<std::string> last_lines(std::string_view text, size_t count, size_t bytes) {
  const auto lines = split_lines(text);
  std::vector<std::string> last;
  size_t used = 0;
  for (auto line = lines.rbegin(); line != lines.rend() && last.size() < count; ++line) {
    std::string clean = clean_text(*line);
    if (used + clean.size() > bytes) {
      if (last.empty()) last.push_back(shorten(std::move(clean), bytes));
      break;
    }
    used += clean.size();
    last.push_back(std::move(clean));
  }
  std::reverse(last.begin(), last.end());
  return last;
}

std::string last_exception(std::string_view text) {
  std::string found;
  bool in_traceback = false;
  std::string thrown;  // "terminate called after throwing an instance of 'X'": what() may follow on the next line
  for (const std::string_view line : split_lines(text)) {
    if (!thrown.empty()) {
      constexpr std::string_view kWhat = "  what():  ";
      found = line.starts_with(kWhat) ? thrown + ": " + std::string(line.substr(kWhat.size())) : thrown;
      thrown.clear();
    }
    if (line.starts_with("Traceback (most recent call last)")) {
      in_traceback = true;
    } else if (in_traceback && !line.empty() && line[0] != ' ' && line[0] != '\t') {
      // Frames are indented; the first line that isn't names the exception.
      in_traceback = false;
      if (starts_with_name(line)) found = line;
    } else if (constexpr std::string_view kThrown = "terminate called after throwing an instance of '";
               line.starts_with(kThrown)) {
      const std::string_view rest = line.substr(kThrown.size());
      thrown = std::string(rest.substr(0, rest.find('\'')));
    } else if (line.find("Assertion `") != std::string_view::npos && line.ends_with("failed.")) {
      found = line;
    } else if (line.starts_with("thread '") && line.find("panicked at") != std::string_view::npos) {
      found = line;
    } else if (line.starts_with("pitcrew: invariant") || line.starts_with("CUDA error")) {
      found = line;
    }
  }
  if (!thrown.empty()) found = thrown;
  return shorten(without_addresses(clean_text(found)), 512);
}

}  // namespace pitcrew::launcher
