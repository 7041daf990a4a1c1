// Names, slices, safetensors headers and manifests.
#include <gmock/gmock.h>

#include "lib/base/digest.hpp"
#include "trainer/checkpoint/manifest.hpp"
#include "trainer/checkpoint/safetensors.hpp"
#include "trainer/checkpoint/snapshot.hpp"
#include "trainer/checkpoint/testing.hpp"

namespace pitcrew::trainer {
namespace {

using ::testing::HasSubstr;

TEST(CheckpointNames, are_ordered_by_claim_and_then_by_step) {
  EXPECT_EQ(to_string(CheckpointName{7, Step(500)}), "step-000000000500-c7");
  EXPECT_EQ(parse_checkpoint_name("step-000000000500-c7"), (CheckpointName{7, Step(500)}));
  EXPECT_GT(*parse_checkpoint_name("step-1-c8"), *parse_checkpoint_name("step-500-c7"));
  for (const char* wrong : {"step-", "step--c", "step-1", "step-1-c", "step-x-c1", "claims", "step-1-c1.tmp",
                            "step-99999999999999999999-c1"}) {
    EXPECT_FALSE(parse_checkpoint_name(wrong)) << wrong;
  }
}

TEST(Slices, cover_every_element_once_evenly_and_cut_at_chunks_only) {
  testing::ToyState state(5 * 1000 * 1000);
  const auto& tensors = state.tensors();
  for (uint32_t parts = 1; parts <= 40; ++parts) {
    const auto dealt = deal_slices(tensors, parts);
    std::vector<uint64_t> next(tensors.size(), 0);
    uint64_t most = 0;
    for (const auto& part : dealt) {
      uint64_t bytes = 0;
      for (const StateSlice& slice : part) {
        EXPECT_EQ(slice.first, next[slice.tensor]);
        EXPECT_EQ(slice.first * size_of(tensors[slice.tensor].dtype) % kChunkBytes, 0u);
        next[slice.tensor] += slice.count;
        bytes += slice.count * size_of(tensors[slice.tensor].dtype);
      }
      most = std::max(most, bytes);
    }
    for (size_t t = 0; t < tensors.size(); ++t) EXPECT_EQ(next[t], tensors[t].elements());
    EXPECT_LE(most, state.total() / parts + 2 * kChunkBytes) << parts;
  }
}

std::string file_of(const std::string& json, const std::string& data) {
  std::string text(8, '\0');
  text[0] = static_cast<char>(json.size());
  text[1] = static_cast<char>(json.size() >> 8);
  return text + json + data;
}

TEST(Safetensors, a_header_reads_back_and_data_begins_at_a_page) {
  const std::vector<safetensors::Entry> entries = {{"a", "F32", {2, 3}, 0, 24}, {"b", "U8", {}, 24, 25}};
  const std::string text = safetensors::encode_header(entries, {{"format", "x"}});
  EXPECT_EQ(text.size() % 4096, 0u);
  const auto header = safetensors::decode_header(text, text.size() + 25);
  ASSERT_TRUE(header) << header.error().message;
  EXPECT_EQ(header->entries, entries);
  EXPECT_EQ(header->metadata.at("format"), "x");
}

TEST(Safetensors, holes_overlaps_wrong_sizes_and_repeated_names_are_refused) {
  const auto refused = [](const std::string& json, size_t data) {
    const std::string text = file_of(json, "");
    const auto header = safetensors::decode_header(text, text.size() + data);
    return header ? "" : header.error().message;
  };
  EXPECT_EQ(refused(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", 4), "");
  EXPECT_THAT(refused(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[1,5]}})", 5), HasSubstr("hole or an overlap"));
  EXPECT_THAT(
      refused(
          R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}})",
          6),
      HasSubstr("overlap"));
  EXPECT_THAT(refused(R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0,4]}})", 4),
              HasSubstr("16 bytes by its shape"));
  EXPECT_THAT(refused(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", 5), HasSubstr("the file at 5"));
  EXPECT_THAT(
      refused(
          R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})",
          0),
      HasSubstr("a"));
  EXPECT_THAT(refused(R"({"a":{"dtype":"U64","shape":[9223372036854775807,9],"data_offsets":[0,0]}})", 0),
              HasSubstr("larger than 2^64"));
  EXPECT_THAT(refused(R"({"a":{"dtype":"Q3","shape":[1],"data_offsets":[0,1]}})", 1), HasSubstr("unknown dtype"));
}

Manifest example() {
  testing::ToyState state;
  state.fill(1);
  Manifest manifest{.name = {3, Step(40)},
                    .time = "2026-01-01T00:00:00Z",
                    .job_uid = "u",
                    .job_name = "n",
                    .world_size = 2,
                    .state = {{"next", 41}}};
  std::vector<ShardReport> reports;
  for (uint32_t rank = 0; rank < 2; ++rank) {
    const SnapshotLayout layout(state.tensors(), rank, 2, {rank, 2});
    reports.push_back(layout.measure(std::vector<std::byte>(layout.bytes()).data()));
  }
  add_shards(manifest, state.tensors(), reports);
  return manifest;
}

TEST(Manifests, read_back_and_refuse_every_flipped_bit) {
  const Manifest manifest = example();
  const std::string text = encode(manifest);
  const auto read = decode_manifest(text);
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(encode(*read), text);
  EXPECT_EQ(read->state, manifest.state);
  for (size_t at = 0; at < text.size(); ++at) {
    std::string flipped = text;
    flipped[at] = static_cast<char>(flipped[at] ^ (1 << (at % 8)));
    EXPECT_FALSE(decode_manifest(flipped)) << at;
  }
}

TEST(Manifests, that_cover_a_tensor_twice_or_not_at_all_are_refused) {
  Manifest missing = example();
  missing.tensors[0].parts.pop_back();
  EXPECT_THAT(decode_manifest(encode(missing)).error().message, HasSubstr("not covered exactly"));
  Manifest beyond = example();
  beyond.files[0].bytes = 5000;
  EXPECT_THAT(decode_manifest(encode(beyond)).error().message, HasSubstr("reaches over the end"));
}

TEST(Manifests, have_tensor_digests_that_do_not_depend_on_the_number_of_shards) {
  testing::ToyState state;
  state.fill(9);
  std::vector<std::vector<uint64_t>> digests;
  for (const uint32_t ranks : {1u, 2u, 5u}) {
    Manifest manifest;
    std::vector<ShardReport> reports;
    for (uint32_t rank = 0; rank < ranks; ++rank) {
      const SnapshotLayout layout(state.tensors(), rank, ranks, {rank, ranks});
      std::vector<std::byte> shard(layout.bytes());
      for (const auto& place : layout.places()) {
        const StateTensor& tensor = state.tensors()[place.slice.tensor];
        std::copy_n(tensor.data + place.slice.first * size_of(tensor.dtype), place.bytes, shard.data() + place.offset);
      }
      reports.push_back(layout.measure(shard.data()));
    }
    add_shards(manifest, state.tensors(), reports);
    digests.emplace_back();
    for (const auto& tensor : manifest.tensors) digests.back().push_back(tensor.digest);
  }
  EXPECT_EQ(digests[0], digests[1]);
  EXPECT_EQ(digests[0], digests[2]);
}

TEST(Snapshots, are_valid_safetensors_files_whose_header_never_changes_its_length) {
  testing::ToyState state;
  for (uint32_t rank = 0; rank < 3; ++rank) {
    const SnapshotLayout layout(state.tensors(), rank, 3, {rank, 3});
    for (const CheckpointName name : {CheckpointName{1, Step(1)}, CheckpointName{~uint64_t{0}, Step(~uint64_t{0})}}) {
      const std::string header = layout.header(name);
      EXPECT_EQ(header.size(), layout.header_bytes());
      const auto read = safetensors::decode_header(header, layout.bytes());
      ASSERT_TRUE(read) << read.error().message;
      EXPECT_TRUE(read->metadata.contains("slices"));
    }
  }
}

TEST(Manifest, a_cut_that_is_missing_or_does_not_fit_is_damage) {
  TensorCut cut{.axis = 1, .groups = {6}, .count = 2};
  const auto chunk = [](uint64_t value) { return std::vector<uint64_t>{value}; };
  Manifest manifest;
  manifest.files.push_back({"shard", 4096 + 96, 4096, 1});
  for (uint32_t index = 0; index < 2; ++index) {
    cut.index = index;
    manifest.tensors.push_back({"out", DType::kF32, {4, 6}, digest_of_chunks(chunk(index)), {}, cut});
    manifest.tensors.back().parts.push_back({0, 4096 + index * 48, 0, 12, chunk(index)});
  }
  const auto decoded = decode_manifest(encode(manifest));
  ASSERT_TRUE(decoded) << decoded.error().message;
  EXPECT_EQ(decoded->tensors[1].cut, cut);

  Manifest lacking = manifest;
  lacking.tensors.pop_back();
  EXPECT_NE(decode_manifest(encode(lacking)).error().message.find("lacks some of its cuts"), std::string::npos);
  Manifest other = manifest;
  other.tensors[1].cut.axis = 0;
  other.tensors[1].cut.groups = {4};
  EXPECT_NE(decode_manifest(encode(other)).error().message.find("don't fit together"), std::string::npos);
  Manifest wrong = manifest;
  wrong.tensors[1].cut.groups = {5};
  EXPECT_NE(decode_manifest(encode(wrong)).error().message.find("must add up"), std::string::npos);
}

}  // namespace
}  // namespace pitcrew::trainer
