#include "trainer/checkpoint/snapshot.hpp"

#include <algorithm>

#include "lib/base/digest.hpp"
#include "trainer/checkpoint/safetensors.hpp"

namespace pitcrew::trainer {
namespace {

constexpr size_t kPage = 4096;

// What this rank saves: of tensors that aren't cut, nothing where it isn't the first tensor rank.
std::vector<StateTensor> saved_by(const std::vector<StateTensor>& tensors) {
  const bool first =
      std::all_of(tensors.begin(), tensors.end(), [](const StateTensor& tensor) { return tensor.cut.index == 0; });
  std::vector<StateTensor> saved = tensors;
  for (StateTensor& tensor : saved) {
    if (!first && tensor.cut.whole()) tensor.count = 0;
  }
  return saved;
}

}  // namespace

SnapshotLayout::SnapshotLayout(const std::vector<StateTensor>& tensors, uint32_t rank, uint32_t ranks, Holders holders)
    : file_(shard_file_name(rank, ranks)) {
  std::vector<size_t> numbers;
  for (size_t t = 0, next = 0; t < tensors.size(); next += tensors[t++].cut.count)
    numbers.push_back(next + tensors[t].cut.index);
  const auto dealt = deal_slices(saved_by(tensors), holders.count);
  for (const StateSlice& slice : dealt[holders.index]) {
    const StateTensor& tensor = tensors[slice.tensor];
    places_.push_back({slice, 0, slice.count * size_of(tensor.dtype)});
    names_.push_back(tensor.name);
    dtypes_.emplace_back(safetensors::dtype_name(tensor.dtype));
    shapes_.push_back(tensor.shape);
    cuts_.push_back(tensor.cut);
    numbers_.push_back(numbers[slice.tensor]);
  }
  // Wide types first, so that every tensor is aligned to its elements.
  std::vector<size_t> order(places_.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return safetensors::dtype_bytes(dtypes_[a]) > safetensors::dtype_bytes(dtypes_[b]);
  });
  uint64_t at = 0;
  for (const size_t i : order) {
    places_[i].offset = at;
    at += places_[i].bytes;
  }
  // Step and claim are written with all their digits, so that every header is equally long.
  const std::string widest(20, '0');
  header_bytes_ = encode(widest, widest).size();
  for (Place& place : places_) place.offset += header_bytes_;
  bytes_ = header_bytes_ + at;
}

std::string SnapshotLayout::encode(const std::string& step, const std::string& claim) const {
  std::vector<safetensors::Entry> entries;
  Json slices = Json::object();
  for (size_t i = 0; i < places_.size(); ++i) {
    const Place& place = places_[i];
    const bool whole = place.slice.first == 0 && place.slice.count == held_elements(shapes_[i], cuts_[i]);
    const uint64_t begin = place.offset - header_bytes_;
    entries.push_back({names_[i], dtypes_[i],
                       whole ? held_shape(shapes_[i], cuts_[i]) : std::vector<uint64_t>{place.slice.count}, begin,
                       begin + place.bytes});
    slices[names_[i]] = {{"shape", shapes_[i]}, {"first", place.slice.first}, {"count", place.slice.count}};
    if (const TensorCut& cut = cuts_[i]; !cut.whole()) {
      slices[names_[i]]["cut"] = {
          {"axis", cut.axis}, {"groups", cut.groups}, {"count", cut.count}, {"index", cut.index}};
    }
  }
  return safetensors::encode_header(
      entries, {{"format", "pitcrew-checkpoint-1"}, {"step", step}, {"claim", claim}, {"slices", slices.dump()}},
      kPage);
}

std::string SnapshotLayout::header(CheckpointName name) const {
  const auto wide = [](uint64_t value) {
    std::string digits = std::to_string(value);
    return std::string(20 - digits.size(), '0') + digits;
  };
  return encode(wide(name.step.value), wide(name.claim));
}

ShardReport SnapshotLayout::measure(const std::byte* shard) const {
  std::vector<uint64_t> digests;
  for (const Place& place : places_) {
    for (uint64_t at = 0; at < place.bytes; at += kChunkBytes)
      digests.push_back(xxh3(shard + place.offset + at, std::min(kChunkBytes, place.bytes - at)));
  }
  return report(shard, digests.data());
}

ShardReport SnapshotLayout::report(const std::byte* shard, const uint64_t* digests) const {
  ShardReport report;
  report.file = {file_, bytes_, header_bytes_, xxh3(shard, header_bytes_)};
  for (size_t i = 0; i < places_.size(); ++i) {
    const Place& place = places_[i];
    const uint64_t chunks = chunks_of(place.bytes);
    Manifest::Part part{0, place.offset, place.slice.first, place.slice.count, {digests, digests + chunks}};
    report.parts.emplace_back(numbers_[i], std::move(part));
    digests += chunks;
  }
  return report;
}

uint64_t SnapshotLayout::chunks() const {
  uint64_t sum = 0;
  for (const Place& place : places_) sum += chunks_of(place.bytes);
  return sum;
}

}  // namespace pitcrew::trainer
