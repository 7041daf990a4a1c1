// What an API server may send: a list or a watch in pieces of any size, taken apart into objects and decoded. What is
// decoded from the members that a type reads must be what is decoded from all of them.
#include <algorithm>
#include <cstdlib>
#include <string_view>

#include "lib/kube/http/json_slicer.hpp"
#include "lib/kube/types/node.hpp"
#include "lib/kube/types/pod.hpp"

namespace pitcrew::kube {
namespace {

template <typename T>
void decode_both_ways(const std::string& text) {
  const auto full = parse_json(text);
  if (!full) return;
  const auto part = parse_json(text, T::selection());
  if (!part) std::abort();
  const auto from_full = T::decode(*full);
  const auto from_part = T::decode(*part);
  if (from_full.ok() != from_part.ok()) std::abort();
  if (from_full && !(*from_full == *from_part)) std::abort();
}

}  // namespace
}  // namespace pitcrew::kube

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace pitcrew::kube;
  if (size < 2) return 0;
  const size_t piece = 1 + data[0];
  std::string_view text(reinterpret_cast<const char*>(data + 2), size - 2);
  const auto decode = [](const std::string& value) {
    decode_both_ways<Pod>(value);
    decode_both_ways<Node>(value);
  };
  JsonSlicer slicer({.slice = data[1] % 2 == 0 ? JsonSlicer::Slice::kItems : JsonSlicer::Slice::kObject,
                     .max_value_bytes = 1 << 16,
                     .max_envelope_bytes = 1 << 12,
                     .drop_managed_fields = data[1] % 3 == 0},
                    {decode, [](const std::string& envelope) { (void)pitcrew::parse_json(envelope); }});
  while (!text.empty() && slicer.feed(text.substr(0, piece))) text.remove_prefix(std::min(piece, text.size()));
  return 0;
}
