#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <stdlib.h>
#include <unistd.h>

#include "trainer/data/batch_loader.hpp"
#include "trainer/data/bin_format.hpp"

namespace pitcrew::trainer {
namespace {

namespace fs = std::filesystem;

class Folder {
 public:
  Folder() {
    std::string name = (fs::temp_directory_path() / "pitcrew-data-XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ~Folder() { fs::remove_all(path_); }
  std::string write(const std::string& name, const std::string& content) const {
    const fs::path path = fs::path(path_) / name;
    fs::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << content;
    return path.string();
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

template <typename Token>
std::string bin_file(int32_t magic, int32_t version, const std::vector<Token>& tokens) {
  std::string file(kBinHeaderBytes + tokens.size() * sizeof(Token), '\0');
  const int32_t header[] = {magic, version, static_cast<int32_t>(tokens.size())};
  std::memcpy(file.data(), header, sizeof header);
  if (!tokens.empty()) std::memcpy(file.data() + kBinHeaderBytes, tokens.data(), tokens.size() * sizeof(Token));
  return file;
}

std::string read_text(const TokenSource& source) {
  std::vector<int32_t> tokens(source.tokens());
  EXPECT_TRUE(source.read(0, tokens).ok());
  return {tokens.begin(), tokens.end()};
}

TEST(TextSource, files_come_in_the_order_of_their_paths_each_closed_by_a_zero) {
  Folder folder;
  folder.write("b.txt", "bb");
  folder.write("a/z.txt", "az");
  folder.write("a.txt", "a");
  const auto source = *open_text({.paths = {folder.path()}});
  EXPECT_EQ(read_text(*source), std::string("a\0az\0bb\0", 8));
  EXPECT_EQ(source->vocabulary(), 256u);
}

TEST(TextSource, hidden_binary_large_excluded_linked_and_other_files_are_left_out) {
  Folder folder;
  folder.write("keep.cpp", "x");
  folder.write(".git/config.cpp", "hidden");
  folder.write("build/gen.cpp", "excluded");
  folder.write("binary.cpp", std::string("a\0b", 3));
  folder.write("large.cpp", std::string(101, 'l'));
  folder.write("notes.txt", "another ending");
  folder.write("empty.cpp", "");
  fs::create_symlink(folder.path() + "/keep.cpp", folder.path() + "/link.cpp");
  fs::create_directory_symlink(folder.path(), folder.path() + "/loop");
  TextSettings settings{.paths = {folder.path()}, .include = {".cpp"}, .exclude = {"build"}, .max_file_bytes = 100};
  EXPECT_EQ(read_text(**open_text(settings)), std::string("x\0", 2));
}

TEST(TextSource, the_fingerprint_knows_content_and_names_but_not_the_place) {
  Folder a, b, c, d;
  a.write("x.txt", "same");
  b.write("x.txt", "same");
  c.write("x.txt", "sane");
  d.write("y.txt", "same");
  const auto fingerprint = [](const Folder& folder) { return (*open_text({.paths = {folder.path()}}))->fingerprint(); };
  EXPECT_EQ(fingerprint(a), fingerprint(b));
  EXPECT_NE(fingerprint(a), fingerprint(c));
  EXPECT_NE(fingerprint(a), fingerprint(d));
}

TEST(TextSource, what_is_missing_binary_or_empty_is_said) {
  Folder folder;
  EXPECT_EQ(open_text({.paths = {folder.path() + "/nothing"}}).error().code, Code::kNotFound);
  EXPECT_EQ(open_text({.paths = {folder.path()}}).error().code, Code::kInvalidArgument);
  const std::string binary = folder.write("b", std::string(4, '\0'));
  EXPECT_NE(open_text({.paths = {binary}}).error().message.find("is not text"), std::string::npos);
}

TEST(TextSource, a_file_that_shrank_is_named) {
  Folder folder;
  const std::string path = folder.write("a.txt", "0123456789");
  const auto source = *open_text({.paths = {folder.path()}});
  folder.write("a.txt", "01");
  std::vector<int32_t> tokens(10);
  const Status read = source->read(0, tokens);
  ASSERT_FALSE(read.ok());
  EXPECT_EQ(read.error().code, Code::kDataLoss);
  EXPECT_NE(read.error().message.find(path), std::string::npos);
}

TEST(BinSource, both_versions_are_read_across_files) {
  Folder folder;
  folder.write("train_0.bin", bin_file<uint16_t>(20240520, 1, {1, 2, 50256}));
  folder.write("train_1.bin", bin_file<uint32_t>(20240801, 7, {7, 50000}));
  const auto source = *open_bin({folder.path()}, 50257);
  std::vector<int32_t> tokens(5);
  ASSERT_TRUE(source->read(0, tokens).ok());
  EXPECT_EQ(tokens, (std::vector<int32_t>{1, 2, 50256, 7, 50000}));
  ASSERT_TRUE(source->read(2, std::span(tokens).first(2)).ok());
  EXPECT_EQ(tokens[0], 50256);
  EXPECT_EQ(tokens[1], 7);
}

TEST(BinSource, a_token_outside_the_vocabulary_is_named_with_its_file_and_place) {
  Folder folder;
  const std::string path = folder.write("a.bin", bin_file<uint16_t>(20240520, 1, {1, 2, 300, 4}));
  const auto source = *open_bin({path}, 256);
  std::vector<int32_t> tokens(4);
  const Status read = source->read(0, tokens);
  ASSERT_FALSE(read.ok());
  EXPECT_EQ(read.error().message.find(path + ": token number 2 is 300, outside the model's vocabulary of 256"), 0u)
      << read.error().message;
}

TEST(BinSource, headers_that_lie_are_refused) {
  const std::string good = bin_file<uint16_t>(20240520, 1, {1, 2});
  const auto parse = [](const std::string& file, uint64_t bytes) {
    return parse_bin_header(std::as_bytes(std::span(file)).first(std::min(file.size(), kBinHeaderBytes)), bytes);
  };
  EXPECT_TRUE(parse(good, good.size()).ok());
  EXPECT_EQ(parse(good, good.size() - 1).error().code, Code::kDataLoss);
  EXPECT_EQ(parse(good, good.size() + 2).error().code, Code::kDataLoss);
  EXPECT_EQ(parse(good.substr(0, 100), 100).error().code, Code::kInvalidArgument);
  EXPECT_EQ(parse(bin_file<uint16_t>(20240520, 7, {1}), kBinHeaderBytes + 2).error().code, Code::kInvalidArgument);
  EXPECT_EQ(parse(bin_file<uint16_t>(1, 1, {1}), kBinHeaderBytes + 2).error().code, Code::kInvalidArgument);
}

// The file is sparse: it has no bytes but those at its beginning and end.
TEST(BinSource, offsets_beyond_two_gibibytes_are_read) {
  Folder folder;
  const std::string path = folder.write("big.bin", bin_file<uint32_t>(20240801, 7, {}));
  const uint64_t count = 600'000'000;  // 2.4 GB
  const auto tokens = static_cast<int32_t>(count);
  const uint32_t last = 77;
  {
    std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(8);
    file.write(reinterpret_cast<const char*>(&tokens), 4);
    file.seekp(static_cast<std::streamoff>(kBinHeaderBytes + (count - 1) * 4));
    file.write(reinterpret_cast<const char*>(&last), 4);
  }
  const auto source = *open_bin({path}, 100);
  std::vector<int32_t> read(2);
  ASSERT_TRUE(source->read(count - 2, read).ok());
  EXPECT_EQ(read, (std::vector<int32_t>{0, 77}));
}

TEST(Permutation, every_place_is_hit_once_for_every_size) {
  for (const uint64_t size : {1ull, 2ull, 3ull, 5ull, 16ull, 17ull, 1000ull, 4096ull, 5000ull}) {
    const Permutation permutation(size, 9);
    std::set<uint64_t> seen;
    for (uint64_t i = 0; i < size; ++i) {
      const uint64_t x = permutation(i);
      ASSERT_LT(x, size);
      ASSERT_TRUE(seen.insert(x).second) << "size " << size;
    }
  }
}

// Written down so that a change of the order `native-v1` cannot go unnoticed.
TEST(Permutation, the_order_is_what_it_was) {
  const Permutation permutation(10, 1);
  std::vector<uint64_t> order;
  for (uint64_t i = 0; i < 10; ++i) order.push_back(permutation(i));
  EXPECT_EQ(order, (std::vector<uint64_t>{0, 2, 4, 9, 1, 3, 6, 7, 5, 8}));
}

SampleOrder order_of(uint64_t tokens, uint64_t held_out, uint64_t seed, const std::string& fingerprint = "f") {
  return *SampleOrder::make({fingerprint, tokens, 10, held_out, seed});
}

TEST(SampleOrder, a_pass_has_every_training_sample_once_and_no_held_out_one) {
  const SampleOrder order = order_of(1001, 7, 3);
  ASSERT_EQ(order.samples_per_pass(), 93u);
  std::set<uint64_t> held_out;
  for (uint64_t i = 0; i < 7; ++i) held_out.insert(order.first_held_out_token(i));
  EXPECT_EQ(held_out.size(), 7u);
  for (const uint64_t pass : {0, 1, 5}) {
    std::set<uint64_t> seen;
    for (uint64_t i = 0; i < 93; ++i) {
      const uint64_t token = order.first_token(pass * 93 + i);
      EXPECT_EQ(token % 10, 0u);
      EXPECT_LE(token + 11, 1001u);
      EXPECT_FALSE(held_out.contains(token));
      seen.insert(token);
    }
    EXPECT_EQ(seen.size(), 93u);
  }
}

TEST(SampleOrder, passes_and_seeds_differ_but_the_held_out_split_does_not) {
  const SampleOrder a = order_of(100'001, 5, 1), b = order_of(100'001, 5, 2);
  int same_pass = 0, same_seed = 0;
  for (uint64_t i = 0; i < 1000; ++i) {
    same_pass += a.first_token(i) == a.first_token(i + a.samples_per_pass());
    same_seed += a.first_token(i) == b.first_token(i);
  }
  EXPECT_LT(same_pass, 5);
  EXPECT_LT(same_seed, 5);
  for (uint64_t i = 0; i < 5; ++i) EXPECT_EQ(a.first_held_out_token(i), b.first_held_out_token(i));
}

TEST(SampleOrder, its_state_comes_back_and_another_dataset_or_order_is_an_error) {
  const SampleOrder order = order_of(1001, 7, 3);
  const nlohmann::json state = order.state(4711);
  EXPECT_EQ(*order.sample_of(state), 4711u);
  const auto other = order_of(1001, 7, 3, "g").sample_of(state);
  ASSERT_FALSE(other.ok());
  EXPECT_NE(other.error().message.find("dataset of fingerprint f, now it is g"), std::string::npos)
      << other.error().message;
  EXPECT_FALSE(order_of(1001, 7, 4).sample_of(state).ok());
  EXPECT_FALSE(order_of(1001, 8, 3).sample_of(state).ok());
  nlohmann::json foreign = state;
  foreign["version"] = "mds-0.13";
  EXPECT_NE(order.sample_of(foreign).error().message.find("'mds-0.13'"), std::string::npos);
}

TEST(SampleOrder, a_dataset_that_is_too_small_is_refused_with_the_numbers) {
  const auto order = SampleOrder::make({"f", 50, 10, 4, 1});
  ASSERT_FALSE(order.ok());
  EXPECT_NE(order.error().message.find("has 4 samples of 10 tokens, of which 4 are held out"), std::string::npos)
      << order.error().message;
}

TEST(BatchLoader, ranks_together_read_each_sample_of_the_batch_once_whatever_their_number) {
  Folder folder;
  std::string text;
  for (int i = 0; i < 500; ++i) text += static_cast<char>(' ' + i % 90);
  folder.write("a.txt", text);
  const auto source = *open_text({.paths = {folder.path()}});
  const SampleOrder order = *SampleOrder::make({source->fingerprint(), source->tokens(), 4, 3, 1});
  const RealClock clock;
  std::vector<int32_t> whole;
  BatchLoader all(*source, order, clock, {6, 0, 6}, 12);
  for (int step = 0; step < 40; ++step) {  // several passes
    const Batch batch = *all.next();
    EXPECT_EQ(batch.first_sample, 12u + static_cast<uint64_t>(step) * 6);
    whole.insert(whole.end(), batch.tokens.begin(), batch.tokens.end());
  }
  std::vector<int32_t> parts;
  BatchLoader first(*source, order, clock, {6, 0, 2}, 12), second(*source, order, clock, {6, 2, 4}, 12);
  for (int step = 0; step < 40; ++step) {
    for (BatchLoader* loader : {&first, &second}) {
      const Batch batch = *loader->next();
      parts.insert(parts.end(), batch.tokens.begin(), batch.tokens.end());
    }
  }
  EXPECT_EQ(whole, parts);
}

TEST(BatchLoader, an_error_of_the_source_names_the_sample_and_is_final) {
  Folder folder;
  const std::string path = folder.write("a.txt", std::string(100, 'a'));
  const auto source = *open_text({.paths = {folder.path()}});
  const SampleOrder order = *SampleOrder::make({source->fingerprint(), source->tokens(), 4, 0, 1});
  fs::remove(path);
  const RealClock clock;
  BatchLoader loader(*source, order, clock, {1, 0, 1}, 0);
  const auto batch = loader.next();
  ASSERT_FALSE(batch.ok());
  EXPECT_EQ(batch.error().message.find("sample 0: open " + path), 0u) << batch.error().message;
  EXPECT_FALSE(loader.next().ok());
}

}  // namespace
}  // namespace pitcrew::trainer
