// Any bytes as a safetensors file: refused, or a header whose tensors lie within the file, one after another.
#include <cstdint>
#include <string_view>

#include "trainer/checkpoint/safetensors.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace pitcrew;
  const auto header = trainer::safetensors::decode_header({reinterpret_cast<const char*>(data), size}, size);
  if (!header) return 0;
  uint64_t at = 0;
  for (const auto& entry : header->entries) {
    PITCREW_INVARIANT(entry.begin == at && entry.end >= entry.begin, "tensors follow one another");
    at = entry.end;
  }
  PITCREW_INVARIANT(at == header->data_bytes && header->header_bytes + at == size, "and end where the file does");
  // What was read can be written, and reads back the same.
  const std::string again = trainer::safetensors::encode_header(header->entries, header->metadata);
  const auto second = trainer::safetensors::decode_header(again, again.size() + at);
  PITCREW_INVARIANT(second && second->entries == header->entries && second->metadata == header->metadata,
                    "a header reads back");
  return 0;
}
