#include "trainer/data/bin_format.hpp"

#include <bit>
#include <cstring>

namespace pitcrew::trainer {
namespace {

static_assert(std::endian::native == std::endian::little, "token files are little-endian");

struct Start {
  int32_t magic;
  int32_t version;
  int32_t tokens;
};

}  // namespace

Result<BinHeader> parse_bin_header(std::span<const std::byte> header, uint64_t file_bytes) {
  if (header.size() < kBinHeaderBytes) {
    return Error(Code::kInvalidArgument, "is too short for a token file: the header alone has 1,024 bytes");
  }
  Start start{};
  std::memcpy(&start, header.data(), sizeof start);
  BinHeader result;
  if (start.magic == 20240520 && start.version == 1) {
    result.token_bytes = 2;
  } else if (start.magic == 20240801 && start.version == 7) {
    result.token_bytes = 4;
  } else {
    return Error(Code::kInvalidArgument, "is not a token file that is known: magic " + std::to_string(start.magic) +
                                             ", version " + std::to_string(start.version) +
                                             "; known are 20240520 version 1 and 20240801 version 7");
  }
  result.tokens = static_cast<uint32_t>(start.tokens);  // the top bit is a count's, too
  const uint64_t expected = kBinHeaderBytes + result.tokens * result.token_bytes;
  if (expected != file_bytes) {
    return Error(Code::kDataLoss, "says " + std::to_string(result.tokens) + " tokens, so it should have " +
                                      std::to_string(expected) + " bytes, but has " + std::to_string(file_bytes) +
                                      "; copy it again");
  }
  return result;
}

Status decode_bin_tokens(std::span<const std::byte> bytes, uint32_t token_bytes, uint32_t vocabulary, uint64_t first,
                         std::span<int32_t> out) {
  PITCREW_INVARIANT(bytes.size() == out.size() * token_bytes, "bytes for every token");
  for (size_t i = 0; i < out.size(); ++i) {
    uint32_t token = 0;
    std::memcpy(&token, bytes.data() + i * token_bytes, token_bytes);
    if (token >= vocabulary) {
      return Error(Code::kDataLoss, "token number " + std::to_string(first + i) + " is " + std::to_string(token) +
                                        ", outside the model's vocabulary of " + std::to_string(vocabulary) +
                                        "; set model.vocab to that of the tokenizer, or mend the file");
    }
    out[i] = static_cast<int32_t>(token);
  }
  return {};
}

}  // namespace pitcrew::trainer
