#include "agent/probe/disk/mounts.hpp"

#include <algorithm>

namespace pitcrew::agent::disk {
namespace {

// "\040" is how the kernel writes a blank.
std::string unescaped(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size() && out.size() < 1024; ++i) {
    const auto digit = [&](size_t at) { return at < text.size() && text[at] >= '0' && text[at] <= '7'; };
    if (text[i] == '\\' && digit(i + 1) && digit(i + 2) && digit(i + 3)) {
      out += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0'));
      i += 3;
    } else {
      out += text[i];
    }
  }
  return printable(out, 1024);
}

bool has_option(std::string_view options, std::string_view wanted) {
  while (!options.empty()) {
    const size_t comma = options.find(',');
    if (options.substr(0, comma) == wanted) return true;
    options.remove_prefix(comma == std::string_view::npos ? options.size() : comma + 1);
  }
  return false;
}

}  // namespace

std::vector<Mount> parse_mountinfo(std::string_view text) {
  std::vector<Mount> mounts;
  for (const std::string_view line : split_lines(text)) {
    // id parent major:minor root point options [tags…] - type source options
    const auto words = split_words(line);
    const auto dash = std::find(words.begin(), words.end(), "-");
    if (dash - words.begin() < 6 || words.end() - dash < 4) continue;
    Mount mount;
    mount.device = printable(words[2], 32);
    mount.point = unescaped(words[4]);
    mount.type = printable(dash[1], 32);
    mount.source = unescaped(dash[2]);
    mount.mount_read_only = has_option(words[5], "ro");
    mount.system_read_only = has_option(dash[3], "ro");
    mounts.push_back(std::move(mount));
  }
  return mounts;
}

Result<std::vector<Mount>> read_mounts(const HostPaths& paths) {
  constexpr size_t kLimit = 1 << 20;
  auto text = read_text(paths.proc + "/1/mountinfo", kLimit);
  if (!text) text = read_text(paths.proc + "/self/mountinfo", kLimit);
  if (!text && text.error().code == Code::kNotFound) return std::vector<Mount>();
  if (!text) return text.error();
  return parse_mountinfo(*text);
}

}  // namespace pitcrew::agent::disk
