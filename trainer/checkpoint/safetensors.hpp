#pragma once

#include <map>
#include <string>
#include <vector>

#include "lib/base/result.hpp"
#include "trainer/tensor/state.hpp"

namespace pitcrew::trainer::safetensors {

// The safetensors container (huggingface/safetensors, README "Format" and src/tensor.rs): an 8-byte little-endian
// length, a JSON header of that length, and the tensors' bytes one after another without holes.

// The reference reader refuses longer headers.
inline constexpr uint64_t kMaxHeader = 100'000'000;

struct Entry {
  std::string name;
  std::string dtype;  // "F32"
  std::vector<uint64_t> shape;
  uint64_t begin = 0;  // bytes, counted from the end of the header
  uint64_t end = 0;
  bool operator==(const Entry&) const = default;
};

struct Header {
  std::vector<Entry> entries;  // by place in the file
  std::map<std::string, std::string> metadata;
  uint64_t header_bytes = 0;  // length field and padding included: where the data begins
  uint64_t data_bytes = 0;
};

std::string_view dtype_name(DType type);
Result<DType> parse_dtype(std::string_view name);
// Bytes of one element of any type of the format; 0 for a name that it does not have. Types below a byte are not
// supported.
size_t dtype_bytes(std::string_view name);

// The length field and the header, padded with spaces to a multiple of `alignment`, so that the data begins at one.
std::string encode_header(const std::vector<Entry>& entries, const std::map<std::string, std::string>& metadata,
                          size_t alignment = 4096);

// The header's whole length from a file's first eight bytes.
Result<uint64_t> header_length(std::string_view first_eight);

// Reads and checks a header: `text` holds the length field and the header, `file_bytes` is the size of the whole file.
// Refuses holes, overlaps, sizes that don't fit the shape, repeated names, and data that does not end where the file
// does.
Result<Header> decode_header(std::string_view text, uint64_t file_bytes);

}  // namespace pitcrew::trainer::safetensors
