#include "trainer/checkpoint/safetensors.hpp"

#include <algorithm>
#include <cstring>

#include "lib/base/json.hpp"

namespace pitcrew::trainer::safetensors {
namespace {

struct TypeName {
  std::string_view name;
  size_t bytes;
};
// safetensors/src/tensor.rs, enum Dtype; those of less than a byte are left out.
constexpr TypeName kTypes[] = {{"BOOL", 1},    {"U8", 1},          {"I8", 1},          {"F8_E5M2", 1}, {"F8_E4M3", 1},
                               {"F8_E8M0", 1}, {"F8_E4M3FNUZ", 1}, {"F8_E5M2FNUZ", 1}, {"I16", 2},     {"U16", 2},
                               {"F16", 2},     {"BF16", 2},        {"I32", 4},         {"U32", 4},     {"F32", 4},
                               {"C64", 8},     {"F64", 8},         {"I64", 8},         {"U64", 8}};

Error damaged(const std::string& what) {
  return Error(Code::kDataLoss, "safetensors header: " + what + " (the file is damaged)");
}

uint64_t read_length(std::string_view text) {
  uint64_t value = 0;
  for (int i = 7; i >= 0; --i) value = value << 8 | static_cast<unsigned char>(text[static_cast<size_t>(i)]);
  return value;
}

Result<uint64_t> unsigned_of(const Json& json, const std::string& what) {
  if (!json.is_number_unsigned()) return damaged(what + " is not a whole number");
  return json.get<uint64_t>();
}

Result<Entry> decode_entry(const std::string& name, const Json& json) {
  if (!json.is_object() || !json.contains("dtype") || !json.contains("shape") || !json.contains("data_offsets")) {
    return damaged("tensor '" + name + "' lacks dtype, shape or data_offsets");
  }
  Entry entry{.name = name};
  const Json& dtype = json["dtype"];
  const Json& shape = json["shape"];
  const Json& offsets = json["data_offsets"];
  if (!dtype.is_string() || !shape.is_array() || !offsets.is_array() || offsets.size() != 2) {
    return damaged("tensor '" + name + "' has a field of a wrong type");
  }
  entry.dtype = dtype.get<std::string>();
  uint64_t bytes = dtype_bytes(entry.dtype);
  if (bytes == 0)
    return Error(Code::kUnsupported,
                 "safetensors header: tensor '" + name + "' has the unknown dtype '" + entry.dtype + "'");
  for (const Json& extent : shape) {
    PITCREW_ASSIGN(const uint64_t value, unsigned_of(extent, "the shape of '" + name + "'"));
    if (__builtin_mul_overflow(bytes, value, &bytes)) return damaged("tensor '" + name + "' is larger than 2^64 bytes");
    entry.shape.push_back(value);
  }
  PITCREW_ASSIGN(entry.begin, unsigned_of(offsets[0], "the place of '" + name + "'"));
  PITCREW_ASSIGN(entry.end, unsigned_of(offsets[1], "the place of '" + name + "'"));
  if (entry.end < entry.begin || entry.end - entry.begin != bytes) {
    return damaged("tensor '" + name + "' has " + std::to_string(bytes) +
                   " bytes by its shape and others by its place");
  }
  return entry;
}

}  // namespace

std::string_view dtype_name(DType type) {
  switch (type) {
    case DType::kF32:
      return "F32";
    case DType::kF64:
      return "F64";
    case DType::kBF16:
      return "BF16";
    case DType::kU8:
      return "U8";
    case DType::kI32:
      return "I32";
    case DType::kU32:
      return "U32";
    case DType::kI64:
      return "I64";
    case DType::kU64:
      return "U64";
  }
  return "";
}

Result<DType> parse_dtype(std::string_view name) {
  for (const DType type :
       {DType::kF32, DType::kF64, DType::kBF16, DType::kU8, DType::kI32, DType::kU32, DType::kI64, DType::kU64}) {
    if (dtype_name(type) == name) return type;
  }
  return Error(Code::kUnsupported, "the trainer has no tensors of dtype '" + std::string(name) + "'");
}

size_t dtype_bytes(std::string_view name) {
  for (const TypeName& type : kTypes) {
    if (type.name == name) return type.bytes;
  }
  return 0;
}

std::string encode_header(const std::vector<Entry>& entries, const std::map<std::string, std::string>& metadata,
                          size_t alignment) {
  Json json = Json::object();
  if (!metadata.empty()) json["__metadata__"] = metadata;
  for (const Entry& entry : entries) {
    json[entry.name] = {{"dtype", entry.dtype}, {"shape", entry.shape}, {"data_offsets", {entry.begin, entry.end}}};
  }
  std::string text = std::string(8, '\0') + json.dump();
  text.resize((text.size() + alignment - 1) / alignment * alignment, ' ');
  const uint64_t length = text.size() - 8;
  for (size_t i = 0; i < 8; ++i) text[i] = static_cast<char>(length >> (8 * i));
  return text;
}

Result<uint64_t> header_length(std::string_view first_eight) {
  if (first_eight.size() < 8) return damaged("the file has fewer than 8 bytes");
  const uint64_t length = read_length(first_eight);
  if (length > kMaxHeader) return damaged("it claims a length of " + std::to_string(length) + " bytes");
  return length + 8;
}

Result<Header> decode_header(std::string_view text, uint64_t file_bytes) {
  PITCREW_ASSIGN(const uint64_t length, header_length(text));
  if (length > file_bytes || text.size() < length) return damaged("it is longer than the file");
  text = text.substr(8, length - 8);
  if (!text.starts_with('{')) return damaged("it does not begin with '{'");
  const auto parsed = parse_json(text);
  if (!parsed) return damaged(parsed.error().message);
  Header header{.header_bytes = length, .data_bytes = file_bytes - length};
  for (const auto& [name, value] : parsed->items()) {
    if (name == "__metadata__") {
      if (!value.is_object()) return damaged("__metadata__ is not an object");
      for (const auto& [key, word] : value.items()) {
        if (!word.is_string()) return damaged("__metadata__." + key + " is not a string");
        header.metadata[key] = word.get<std::string>();
      }
      continue;
    }
    PITCREW_ASSIGN(Entry entry, decode_entry(name, value));
    header.entries.push_back(std::move(entry));
  }
  std::sort(header.entries.begin(), header.entries.end(), [](const Entry& a, const Entry& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  uint64_t at = 0;
  for (const Entry& entry : header.entries) {
    if (entry.begin != at) return damaged("there is a hole or an overlap before tensor '" + entry.name + "'");
    at = entry.end;
  }
  if (at != header.data_bytes) {
    return damaged("the tensors end at byte " + std::to_string(at) + " of the data, the file at " +
                   std::to_string(header.data_bytes));
  }
  return header;
}

}  // namespace pitcrew::trainer::safetensors
