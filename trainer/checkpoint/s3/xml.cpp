#include "trainer/checkpoint/s3/xml.hpp"

#include <charconv>
#include <utility>

namespace pitcrew::trainer::s3 {
namespace {

constexpr std::pair<std::string_view, char> kEntities[] = {
    {"&amp;", '&'}, {"&lt;", '<'}, {"&gt;", '>'}, {"&quot;", '"'}, {"&apos;", '\''}};

// &#47; or &#x2F; at the beginning of `text`; the length of what it was, 0 where it is none of an ASCII character.
size_t numeric_entity(std::string_view text, char& character) {
  if (!text.starts_with("&#")) return 0;
  const size_t end = text.find(';');
  if (end == std::string_view::npos || end > 8) return 0;
  const bool hexadecimal = text.size() > 2 && (text[2] == 'x' || text[2] == 'X');
  const std::string_view digits = text.substr(hexadecimal ? 3 : 2, end - (hexadecimal ? 3 : 2));
  unsigned value = 0;
  const auto [rest, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), value, hexadecimal ? 16 : 10);
  if (error != std::errc() || rest != digits.data() + digits.size() || value == 0 || value > 127) return 0;
  character = static_cast<char>(value);
  return end + 1;
}

std::string unescape(std::string_view text) {
  std::string plain;
  while (!text.empty()) {
    size_t used = 0;
    char character = text.front();
    if (character == '&') {
      for (const auto& [entity, meaning] : kEntities) {
        if (text.starts_with(entity)) {
          used = entity.size();
          character = meaning;
        }
      }
      if (used == 0) used = numeric_entity(text, character);
    }
    plain += character;
    text.remove_prefix(used == 0 ? 1 : used);
  }
  return plain;
}

}  // namespace

std::vector<std::string_view> elements(std::string_view xml, std::string_view name) {
  const std::string open = "<" + std::string(name) + ">", close = "</" + std::string(name) + ">";
  std::vector<std::string_view> found;
  for (size_t at = xml.find(open); at != std::string_view::npos; at = xml.find(open, at)) {
    at += open.size();
    const size_t end = xml.find(close, at);
    if (end == std::string_view::npos) break;
    found.push_back(xml.substr(at, end - at));
    at = end + close.size();
  }
  return found;
}

std::string element_text(std::string_view xml, std::string_view name) {
  const auto found = elements(xml, name);
  return found.empty() ? std::string() : unescape(found.front());
}

std::string escape_xml(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    bool replaced = false;
    for (const auto& [entity, meaning] : kEntities) {
      if (c != meaning) continue;
      escaped += entity;
      replaced = true;
    }
    if (!replaced) escaped += c;
  }
  return escaped;
}

}  // namespace pitcrew::trainer::s3
