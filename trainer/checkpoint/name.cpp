#include "trainer/checkpoint/name.hpp"

#include <charconv>
#include <cstdio>

namespace pitcrew::trainer {

std::string to_string(CheckpointName name) {
  char text[64];
  std::snprintf(text, sizeof text, "step-%012llu-c%llu", static_cast<unsigned long long>(name.step.value),
                static_cast<unsigned long long>(name.claim));
  return text;
}

std::optional<uint64_t> parse_number(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return value;
}

std::optional<CheckpointName> parse_checkpoint_name(std::string_view text) {
  constexpr std::string_view kPrefix = "step-";
  const size_t mark = text.rfind("-c");
  if (!text.starts_with(kPrefix) || mark == std::string_view::npos || mark < kPrefix.size()) return std::nullopt;
  const auto step = parse_number(text.substr(kPrefix.size(), mark - kPrefix.size()));
  const auto claim = parse_number(text.substr(mark + 2));
  if (!step || !claim) return std::nullopt;
  return CheckpointName{*claim, Step(*step)};
}

std::string shard_file_name(uint32_t shard, uint32_t shards) {
  char text[64];
  std::snprintf(text, sizeof text, "shard-%05u-of-%05u.safetensors", shard, shards);
  return text;
}

}  // namespace pitcrew::trainer
