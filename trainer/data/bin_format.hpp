#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "lib/base/result.hpp"

namespace pitcrew::trainer {

// The header of llm.c's token files: 256 int32, little-endian; magic, version and number of tokens come first
// (llm.c dev/data/data_common.py: 20240520 version 1 with uint16, 20240801 version 7 with uint32).
inline constexpr size_t kBinHeaderBytes = 1024;

struct BinHeader {
  uint32_t token_bytes = 2;
  uint64_t tokens = 0;
};

// `header` holds the file's first bytes, at most kBinHeaderBytes. kDataLoss where the file's size and the number of
// tokens disagree, kInvalidArgument where it is another kind of file.
Result<BinHeader> parse_bin_header(std::span<const std::byte> header, uint64_t file_bytes);

// `bytes` holds out.size() tokens. The error gives the place, counted from `first`, of the first one outside the
// vocabulary.
Status decode_bin_tokens(std::span<const std::byte> bytes, uint32_t token_bytes, uint32_t vocabulary, uint64_t first,
                         std::span<int32_t> out);

}  // namespace pitcrew::trainer
