#include "cli/show/terminal.hpp"

#include <algorithm>
#include <cstdlib>

#include <sys/ioctl.h>
#include <unistd.h>

namespace pitcrew::cli {
namespace {

const char* code_of(Tone tone) {
  switch (tone) {
    case Tone::kPlain:
      return "";
    case Tone::kGood:
      return "\x1b[32m";
    case Tone::kBad:
      return "\x1b[31m";
    case Tone::kWarning:
      return "\x1b[33m";
    case Tone::kDim:
      return "\x1b[2m";
    case Tone::kBold:
      return "\x1b[1m";
  }
  return "";
}

bool set_and_not_empty(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0';
}

bool continues(char c) { return (static_cast<unsigned char>(c) & 0xc0) == 0x80; }

// The byte after the code point or escape sequence that begins at `at`; whether it takes a column.
size_t after(std::string_view text, size_t at, bool& visible) {
  visible = text[at] != '\x1b';
  if (!visible) {
    const size_t end = text.find('m', at);
    return end == std::string_view::npos ? text.size() : end + 1;
  }
  ++at;
  while (at < text.size() && continues(text[at])) ++at;
  return at;
}

// The byte at which `width` columns are used up.
size_t byte_at(std::string_view text, size_t width) {
  size_t at = 0;
  for (size_t used = 0; at < text.size();) {
    bool visible = false;
    const size_t next = after(text, at, visible);
    if (visible && used == width) break;
    used += visible ? 1 : 0;
    at = next;
  }
  return at;
}

}  // namespace

Terminal Terminal::of(int fd, std::string_view when) {
  Terminal terminal;
  const bool is_terminal = isatty(fd) != 0;
  const char* term = std::getenv("TERM");
  const bool dumb = term == nullptr || std::string_view(term) == "dumb";
  terminal.colour = when == "always" || (when != "never" && is_terminal && !dumb && !set_and_not_empty("NO_COLOR"));
  winsize size{};
  if (is_terminal && ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
    terminal.width = size.ws_col;
  } else if (const char* wanted = std::getenv("COLUMNS")) {
    if (const long number = std::strtol(wanted, nullptr, 10); number > 0)
      terminal.width = static_cast<unsigned>(number);
  }
  terminal.width = std::clamp(terminal.width, 40u, 400u);
  return terminal;
}

std::string Terminal::paint(Tone tone, std::string_view text) const {
  if (!colour || tone == Tone::kPlain || text.empty()) return std::string(text);
  return code_of(tone) + std::string(text) + "\x1b[0m";
}

size_t columns(std::string_view text) {
  size_t count = 0;
  for (size_t at = 0; at < text.size();) {
    bool visible = false;
    at = after(text, at, visible);
    count += visible ? 1 : 0;
  }
  return count;
}

std::string cut(std::string_view text, size_t width) {
  if (columns(text) <= width) return std::string(text);
  if (width == 0) return {};
  return std::string(text.substr(0, byte_at(text, width - 1))) + "…";
}

std::vector<std::string> wrap(std::string_view text, size_t width) {
  width = std::max<size_t>(width, 8);
  std::vector<std::string> lines;
  while (!text.empty()) {
    const size_t line_end = text.find('\n');
    std::string_view line = text.substr(0, line_end);
    if (columns(line) <= width) {
      lines.emplace_back(line);
      if (line_end == std::string_view::npos) break;
      text.remove_prefix(line_end + 1);
      continue;
    }
    size_t end = byte_at(line, width);
    size_t next = end;
    if (const size_t space = line.rfind(' ', end); space != std::string_view::npos && space > end / 3) {
      end = space;
      next = space + 1;
    }
    lines.emplace_back(line.substr(0, end));
    text.remove_prefix(next);
  }
  if (lines.empty()) lines.emplace_back();
  return lines;
}

std::string hang(std::string_view text, size_t indent, size_t width) {
  std::string out;
  for (const std::string& line : wrap(text, width > indent ? width - indent : 8)) {
    if (!out.empty()) out += "\n" + std::string(indent, ' ');
    out += line;
  }
  return out;
}

std::string padded(std::string_view text, size_t width) {
  const size_t used = columns(text);
  return std::string(text) + std::string(used < width ? width - used : 0, ' ');
}

}  // namespace pitcrew::cli
