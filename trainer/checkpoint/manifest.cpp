#include "trainer/checkpoint/manifest.hpp"

#include <algorithm>
#include <map>
#include <set>

#include "lib/base/digest.hpp"
#include "trainer/checkpoint/safetensors.hpp"

namespace pitcrew::trainer {
namespace {

// A manifest begins with its own checksum: XXH3-64 of the whole text with these digits replaced by zeros.
constexpr std::string_view kChecksumStart = "{\"checksum\":\"";
constexpr size_t kDigits = 16;
constexpr char kFormat[] = "pitcrew-checkpoint-1";
constexpr uint32_t kMaxCuts = 1 << 16;

Error damaged(const std::string& what) { return Error(Code::kDataLoss, "manifest: " + what + " (it is damaged)"); }

std::string hex_list(const std::vector<uint64_t>& values) {
  std::string text;
  text.reserve(values.size() * kDigits);
  for (const uint64_t value : values) text += hex64(value);
  return text;
}

std::optional<uint64_t> parse_hex64(std::string_view text) {
  if (text.size() != kDigits) return std::nullopt;
  uint64_t value = 0;
  for (const char c : text) {
    const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    if (digit < 0) return std::nullopt;
    value = value << 4 | static_cast<uint64_t>(digit);
  }
  return value;
}

bool read_hex(ObjectReader& reader, std::string_view key, uint64_t& out) {
  std::string text;
  if (!reader.read(key, text)) return false;
  const auto value = parse_hex64(text);
  if (!value) {
    reader.problem(key, "must be 16 hexadecimal digits");
    return false;
  }
  out = *value;
  return true;
}

Json to_json(const Manifest::File& file) {
  return {{"name", file.name},
          {"bytes", file.bytes},
          {"headerBytes", file.header_bytes},
          {"headerDigest", hex64(file.header_digest)}};
}

Json to_json(const Manifest::Part& part) {
  return {{"file", part.file},
          {"offset", part.offset},
          {"first", part.first},
          {"count", part.count},
          {"chunks", hex_list(part.chunks)}};
}

Manifest::File read_file_entry(const Json& json, const std::string& path, Problems& problems) {
  ObjectReader reader(json, path, problems);
  Manifest::File file;
  reader.read("name", file.name);
  reader.read("bytes", file.bytes);
  reader.read("headerBytes", file.header_bytes);
  read_hex(reader, "headerDigest", file.header_digest);
  if (file.name.empty() || file.name.find('/') != std::string::npos || file.name.front() == '.') {
    reader.problem("name", "must be the plain name of a file");
  }
  if (file.header_bytes > file.bytes || file.header_bytes > safetensors::kMaxHeader + 8) {
    reader.problem("headerBytes", "must not be more than the file has");
  }
  return file;
}

Manifest::Part read_part(const Json& json, const std::string& path, Problems& problems) {
  ObjectReader reader(json, path, problems);
  Manifest::Part part;
  uint64_t file = 0;
  std::string chunks;
  reader.read("file", file);
  reader.read("offset", part.offset);
  reader.read("first", part.first);
  reader.read("count", part.count);
  reader.read("chunks", chunks);
  part.file = file;
  if (chunks.size() % kDigits != 0) reader.problem("chunks", "must be groups of 16 digits");
  for (size_t i = 0; i + kDigits <= chunks.size(); i += kDigits) {
    const auto value = parse_hex64(std::string_view(chunks).substr(i, kDigits));
    if (!value) {
      reader.problem("chunks", "must be hexadecimal digits");
      break;
    }
    part.chunks.push_back(*value);
  }
  return part;
}

Json to_json(const TensorCut& cut) {
  return {{"axis", cut.axis}, {"groups", cut.groups}, {"count", cut.count}, {"index", cut.index}};
}

TensorCut read_cut(const Json& json, const std::string& path, const std::vector<uint64_t>& shape, Problems& problems) {
  ObjectReader reader(json, path, problems);
  TensorCut cut;
  reader.read("axis", cut.axis);
  reader.each("groups", [&](const Json& extent, const std::string& at) {
    if (extent.is_number_unsigned()) {
      cut.groups.push_back(extent.get<uint64_t>());
    } else {
      problems.push_back({at, "must be a whole number"});
    }
  });
  reader.read("count", cut.count);
  reader.read("index", cut.index);
  uint64_t sum = 0;
  bool fits = cut.axis < shape.size() && !cut.groups.empty();
  for (const uint64_t extent : cut.groups) fits = fits && !__builtin_add_overflow(sum, extent, &sum);
  if (!fits || sum != shape[cut.axis]) reader.problem("groups", "must add up to the tensor's extent along the axis");
  if (cut.count < 2 || cut.count > kMaxCuts || cut.index >= cut.count)
    reader.problem("count", "must be from 2 to " + std::to_string(kMaxCuts) + ", and above index");
  return cut;
}

// Every element once, each part within its file.
Status check_parts(const Manifest& manifest, const Manifest::Tensor& tensor, uint64_t elements) {
  const uint64_t width = size_of(tensor.dtype);
  uint64_t at = 0;
  std::vector<uint64_t> chunks;
  for (const Manifest::Part& part : tensor.parts) {
    const std::string what = "tensor '" + tensor.name + "'";
    if (part.file >= manifest.files.size()) return damaged(what + " lies in a file that isn't listed");
    const Manifest::File& file = manifest.files[part.file];
    if (part.first != at || part.count > elements - at) return damaged(what + " is not covered exactly by its parts");
    const uint64_t bytes = part.count * width;
    if (part.offset < file.header_bytes || part.offset > file.bytes || bytes > file.bytes - part.offset) {
      return damaged(what + " reaches over the end of " + file.name);
    }
    if (part.chunks.size() != chunks_of(bytes)) return damaged(what + " has another number of chunks than digests");
    chunks.insert(chunks.end(), part.chunks.begin(), part.chunks.end());
    at += part.count;
  }
  if (at != elements) return damaged("tensor '" + tensor.name + "' is not covered exactly by its parts");
  if (digest_of_chunks(chunks) != tensor.digest)
    return damaged("the digest of tensor '" + tensor.name + "' is not that of its chunks");
  return {};
}

Status check(const Manifest& manifest) {
  std::set<std::string> names;
  for (const Manifest::File& file : manifest.files) {
    if (!names.insert(file.name).second) return damaged("it lists " + file.name + " twice");
  }
  std::map<std::string, std::pair<const Manifest::Tensor*, std::set<uint32_t>>> tensors;
  for (const Manifest::Tensor& tensor : manifest.tensors) {
    auto& [first, cuts] = tensors[tensor.name];
    if (first == nullptr) first = &tensor;
    TensorCut like = tensor.cut;
    like.index = first->cut.index;
    if (!cuts.insert(tensor.cut.index).second) return damaged("it lists tensor '" + tensor.name + "' twice");
    if (like != first->cut || tensor.shape != first->shape || tensor.dtype != first->dtype)
      return damaged("the cuts of tensor '" + tensor.name + "' don't fit together");
    uint64_t bytes = size_of(tensor.dtype);
    for (const uint64_t extent : tensor.shape) {
      if (__builtin_mul_overflow(bytes, extent, &bytes))
        return damaged("tensor '" + tensor.name + "' is larger than 2^64 bytes");
    }
    PITCREW_TRY(check_parts(manifest, tensor, tensor.elements()));
  }
  for (const auto& [name, cuts] : tensors) {
    if (cuts.second.size() != cuts.first->cut.count) return damaged("tensor '" + name + "' lacks some of its cuts");
  }
  return {};
}

Manifest::Tensor read_tensor(const Json& json, const std::string& path, Problems& problems) {
  ObjectReader reader(json, path, problems);
  Manifest::Tensor tensor;
  std::string dtype;
  reader.read("name", tensor.name);
  if (reader.read("dtype", dtype)) {
    if (const auto type = safetensors::parse_dtype(dtype)) {
      tensor.dtype = *type;
    } else {
      reader.problem("dtype", type.error().message);
    }
  }
  reader.each("shape", [&](const Json& extent, const std::string& at) {
    if (extent.is_number_unsigned()) {
      tensor.shape.push_back(extent.get<uint64_t>());
    } else {
      problems.push_back({at, "must be a whole number"});
    }
  });
  read_hex(reader, "digest", tensor.digest);
  if (const Json* cut = reader.raw("cut")) tensor.cut = read_cut(*cut, path + ".cut", tensor.shape, problems);
  reader.each("parts",
              [&](const Json& part, const std::string& at) { tensor.parts.push_back(read_part(part, at, problems)); });
  return tensor;
}

}  // namespace

uint64_t Manifest::total_bytes() const {
  uint64_t sum = 0;
  for (const File& file : files) sum += file.bytes;
  return sum;
}

uint64_t digest_of_chunks(const std::vector<uint64_t>& chunks) {
  std::string bytes;
  bytes.reserve(chunks.size() * 8);
  for (const uint64_t chunk : chunks) {
    for (int i = 0; i < 8; ++i) bytes += static_cast<char>(chunk >> (8 * i));
  }
  return xxh3(bytes);
}

std::string encode(const Manifest& manifest) {
  Json files = Json::array(), tensors = Json::array();
  for (const auto& file : manifest.files) files.push_back(to_json(file));
  for (const auto& tensor : manifest.tensors) {
    Json parts = Json::array();
    for (const auto& part : tensor.parts) parts.push_back(to_json(part));
    tensors.push_back({{"name", tensor.name},
                       {"dtype", safetensors::dtype_name(tensor.dtype)},
                       {"shape", tensor.shape},
                       {"digest", hex64(tensor.digest)},
                       {"parts", std::move(parts)}});
    if (!tensor.cut.whole()) tensors.back()["cut"] = to_json(tensor.cut);
  }
  const Json body = {{"format", kFormat},
                     {"step", manifest.name.step.value},
                     {"claim", manifest.name.claim},
                     {"time", manifest.time},
                     {"job", {{"uid", manifest.job_uid}, {"name", manifest.job_name}}},
                     {"epoch", {{"term", manifest.epoch.term.value}, {"number", manifest.epoch.number.value}}},
                     {"worldSize", manifest.world_size},
                     {"configHash", manifest.config_hash},
                     {"dataset", manifest.dataset},
                     {"bitsDependOn", manifest.bits_depend_on},
                     {"state", manifest.state},
                     {"chunkBytes", kChunkBytes},
                     {"files", std::move(files)},
                     {"tensors", std::move(tensors)}};
  std::string text = std::string(kChecksumStart) + std::string(kDigits, '0') + "\"," +
                     body.dump(-1, ' ', false, Json::error_handler_t::replace).substr(1) + "\n";
  text.replace(kChecksumStart.size(), kDigits, hex64(xxh3(text)));
  return text;
}

Result<Manifest> decode_manifest(std::string_view text) {
  if (text.size() > kMaxManifest) return damaged("it is longer than any");
  if (!text.starts_with(kChecksumStart) || text.size() < kChecksumStart.size() + kDigits) {
    return damaged("it does not begin with its checksum");
  }
  const auto checksum = parse_hex64(text.substr(kChecksumStart.size(), kDigits));
  std::string zeroed(text);
  zeroed.replace(kChecksumStart.size(), kDigits, std::string(kDigits, '0'));
  if (!checksum || *checksum != xxh3(zeroed)) return damaged("its checksum differs");

  const auto json = parse_json(text);
  if (!json) return damaged(json.error().message);
  Problems problems;
  ObjectReader reader(*json, "", problems);
  std::string format;
  reader.read("format", format);
  if (format != kFormat) {
    return Error(Code::kUnsupported,
                 "manifest: format '" + format + "' is not '" + kFormat + "', the only one that this version reads");
  }
  Manifest manifest;
  uint64_t chunk_bytes = 0;
  reader.read("step", manifest.name.step);
  reader.read("claim", manifest.name.claim);
  reader.read("time", manifest.time);
  if (auto job = reader.object("job")) {
    job->read("uid", manifest.job_uid);
    job->read("name", manifest.job_name);
  }
  if (auto epoch = reader.object("epoch")) {
    epoch->read("term", manifest.epoch.term);
    epoch->read("number", manifest.epoch.number);
  }
  reader.read("worldSize", manifest.world_size);
  reader.read("configHash", manifest.config_hash);
  reader.read("dataset", manifest.dataset);
  if (const Json* bits = reader.raw("bitsDependOn")) manifest.bits_depend_on = *bits;
  if (const Json* state = reader.raw("state")) manifest.state = *state;
  if (reader.read("chunkBytes", chunk_bytes) && chunk_bytes != kChunkBytes)
    reader.problem("chunkBytes", "must be 1048576");
  reader.each("files", [&](const Json& file, const std::string& at) {
    manifest.files.push_back(read_file_entry(file, at, problems));
  });
  reader.each("tensors", [&](const Json& tensor, const std::string& at) {
    manifest.tensors.push_back(read_tensor(tensor, at, problems));
  });
  if (!problems.empty()) return damaged(join(problems));
  PITCREW_TRY(check(manifest));
  return manifest;
}

Json to_json(const ShardReport& report) {
  Json parts = Json::array();
  for (const auto& [tensor, part] : report.parts) {
    parts.push_back(to_json(part));
    parts.back()["tensor"] = tensor;
  }
  return {{"file", to_json(report.file)}, {"parts", std::move(parts)}};
}

Result<ShardReport> parse_shard_report(const Json& json) {
  Problems problems;
  ObjectReader reader(json, "", problems);
  ShardReport report;
  if (const Json* file = reader.raw("file")) report.file = read_file_entry(*file, "file", problems);
  reader.each("parts", [&](const Json& part, const std::string& at) {
    ObjectReader fields(part, at, problems);
    uint64_t tensor = 0;
    fields.read("tensor", tensor);
    report.parts.emplace_back(tensor, read_part(part, at, problems));
  });
  if (!problems.empty()) return Error(Code::kInternal, "a rank's report of its shard: " + join(problems));
  return report;
}

std::vector<Manifest::Tensor> manifest_tensors(const std::vector<StateTensor>& tensors) {
  std::vector<Manifest::Tensor> all;
  for (const StateTensor& tensor : tensors) {
    for (uint32_t index = 0; index < tensor.cut.count; ++index) {
      Manifest::Tensor& made = all.emplace_back(Manifest::Tensor{tensor.name, tensor.dtype, tensor.shape});
      made.cut = tensor.cut;
      made.cut.index = index;
    }
  }
  return all;
}

void add_shards(Manifest& manifest, const std::vector<StateTensor>& tensors, const std::vector<ShardReport>& reports) {
  manifest.tensors = manifest_tensors(tensors);
  for (const ShardReport& report : reports) {
    manifest.files.push_back(report.file);
    for (const auto& [tensor, reported] : report.parts) {
      Manifest::Part part = reported;
      part.file = manifest.files.size() - 1;
      manifest.tensors[tensor].parts.push_back(std::move(part));
    }
  }
  for (Manifest::Tensor& tensor : manifest.tensors) {
    // Shards come before replicas in the ranks' order.
    std::stable_sort(tensor.parts.begin(), tensor.parts.end(),
                     [](const Manifest::Part& a, const Manifest::Part& b) { return a.first < b.first; });
    std::vector<uint64_t> chunks;
    for (const Manifest::Part& part : tensor.parts) chunks.insert(chunks.end(), part.chunks.begin(), part.chunks.end());
    tensor.digest = digest_of_chunks(chunks);
  }
}

}  // namespace pitcrew::trainer
