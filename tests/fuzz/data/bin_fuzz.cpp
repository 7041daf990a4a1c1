#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "trainer/data/bin_format.hpp"

// A token file as it comes from outside: the header is parsed, and if it is believed, every token is decoded.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace pitcrew::trainer;
  const std::span<const std::byte> file = std::as_bytes(std::span(data, size));
  const auto header = parse_bin_header(file.first(std::min(size, kBinHeaderBytes)), size);
  if (!header) return 0;
  // A header that is believed describes the file exactly.
  if (kBinHeaderBytes + header->tokens * header->token_bytes != size) abort();
  std::vector<int32_t> tokens(header->tokens);
  constexpr uint32_t kVocabulary = 50257;
  if (decode_bin_tokens(file.subspan(kBinHeaderBytes), header->token_bytes, kVocabulary, 0, tokens)) {
    for (const int32_t token : tokens) {
      if (token < 0 || token >= static_cast<int32_t>(kVocabulary)) abort();
    }
  }
  return 0;
}
