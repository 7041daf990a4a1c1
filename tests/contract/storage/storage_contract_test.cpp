// What every checkpoint storage must do, run on every one there is: a folder of the machine's file system, and of one
// in memory that loses what was not synced, and, where libcurl is, a bucket of a real S3 server.
#include <atomic>
#include <filesystem>
#include <thread>

#include <gmock/gmock.h>
#include <stdlib.h>

#include "tests/faults/faulty_files.hpp"
#include "trainer/checkpoint/storage.hpp"

#ifdef PITCREW_HAS_S3
#include "tests/contract/storage/s3_server.hpp"
#endif

namespace pitcrew::trainer {
namespace {

struct Place {
  virtual ~Place() = default;
  virtual bool there() const { return true; }
  virtual Storage& storage() = 0;
  // Leaves what is left after the machine lost power. A real folder can't be asked to; it has to hold the same all the
  // more.
  virtual void lose_power() {}
};

struct FolderPlace final : Place {
  FolderPlace() {
    std::string name = (std::filesystem::temp_directory_path() / "pitcrew-storage-XXXXXX").string();
    path = ::mkdtemp(name.data());
    opened = *open_storage(posix_file_system(), path + "/new/checkpoints");
  }
  ~FolderPlace() override { std::filesystem::remove_all(path); }
  Storage& storage() override { return *opened; }
  std::string path;
  std::unique_ptr<Storage> opened;
};

struct MemoryPlace final : Place {
  MemoryPlace() : opened(*open_storage(files, "new/checkpoints")) {}
  Storage& storage() override { return *opened; }
  void lose_power() override { files.lose_power(0, 1); }
  faults::PowerLossFiles files;
  std::unique_ptr<Storage> opened;
};

#ifdef PITCREW_HAS_S3
struct BucketPlace final : Place {
  BucketPlace() {
    if (auto* server = testing::S3Server::shared(); server != nullptr)
      opened = *s3::open_s3_storage(server->new_path(), server->variables(), clock);
  }
  bool there() const override { return opened != nullptr; }
  Storage& storage() override { return *opened; }
  const RealClock clock;
  std::unique_ptr<Storage> opened;
};
#endif

using MakePlace = std::unique_ptr<Place> (*)();
class StorageContract : public ::testing::TestWithParam<std::pair<const char*, MakePlace>> {
 protected:
  StorageContract() : place(GetParam().second()), storage(place->storage()) {}
  void SetUp() override {
#ifdef PITCREW_HAS_S3
    if (!place->there()) GTEST_SKIP() << testing::S3Server::why_not();
#endif
  }
  Status write(const std::string& name, const std::string& content) {
    PITCREW_ASSIGN(const auto upload, storage.write(name));
    const auto bytes = std::as_bytes(std::span(content));
    PITCREW_TRY(upload->append(bytes.first(content.size() / 2)));
    PITCREW_TRY(upload->append(bytes.subspan(content.size() / 2)));
    return upload->finish();
  }
  std::vector<std::string> names(const std::string& folder) {
    std::vector<std::string> all;
    const auto listed = storage.list(folder);
    EXPECT_TRUE(listed);
    for (const auto& entry : *listed) all.push_back(entry.name);
    return all;
  }

  const std::unique_ptr<Place> place;
  Storage& storage;
};

TEST_P(StorageContract, what_is_absent_is_an_empty_list_and_not_found) {
  EXPECT_TRUE(names("").empty());
  EXPECT_TRUE(names("step-1-c1").empty());
  EXPECT_EQ(storage.read("step-1-c1/manifest.json", 10).error().code, Code::kNotFound);
  EXPECT_EQ(storage.open("step-1-c1/shard").error().code, Code::kNotFound);
  EXPECT_TRUE(storage.remove("step-1-c1/manifest.json"));
  EXPECT_TRUE(storage.remove_folder("step-1-c1"));
}

TEST_P(StorageContract, a_file_written_in_pieces_reads_back_whole_and_in_ranges) {
  ASSERT_TRUE(write("step-1-c1/shard", "0123456789"));
  EXPECT_EQ(*storage.read("step-1-c1/shard", 100), "0123456789");
  const auto file = *storage.open("step-1-c1/shard");
  std::string middle(4, '\0');
  ASSERT_TRUE(file->read(std::as_writable_bytes(std::span(middle)), 3));
  EXPECT_EQ(middle, "3456");
  EXPECT_EQ(*file->size(), 10u);
  std::string beyond(4, '\0');
  EXPECT_EQ(file->read(std::as_writable_bytes(std::span(beyond)), 8).error().code, Code::kDataLoss);
}

TEST_P(StorageContract, writing_again_empties_the_file_first) {
  ASSERT_TRUE(write("step-1-c1/shard", "a longer content"));
  ASSERT_TRUE(write("step-1-c1/shard", "short"));
  EXPECT_EQ(*storage.read("step-1-c1/shard", 100), "short");
}

TEST_P(StorageContract, a_larger_file_than_the_limit_is_refused) {
  ASSERT_TRUE(storage.replace("a/manifest.json", "12345"));
  EXPECT_FALSE(storage.read("a/manifest.json", 4));
}

TEST_P(StorageContract, replacing_leaves_one_file_with_the_new_content) {
  ASSERT_TRUE(storage.replace("a/manifest.json", "one"));
  ASSERT_TRUE(storage.replace("a/manifest.json", "two"));
  EXPECT_EQ(*storage.read("a/manifest.json", 100), "two");
  EXPECT_THAT(names("a"), ::testing::ElementsAre("manifest.json"));
}

TEST_P(StorageContract, of_many_who_create_one_name_exactly_one_succeeds_and_its_content_stays) {
  std::atomic<int> made{0}, refused{0};
  std::atomic<int> winner{-1};
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] {
      const Status created = storage.create("claims/1.json", std::to_string(i));
      if (created) {
        ++made;
        winner = i;
      } else if (created.error().code == Code::kAlreadyExists) {
        ++refused;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(made, 1);
  EXPECT_EQ(refused, 7);
  EXPECT_EQ(*storage.read("claims/1.json", 100), std::to_string(winner.load()));
  EXPECT_THAT(names("claims"), ::testing::ElementsAre("1.json"));
}

TEST_P(StorageContract, lists_tell_files_with_their_sizes_from_folders) {
  ASSERT_TRUE(write("step-1-c1/shard", "12345"));
  ASSERT_TRUE(storage.replace("step-1-c1/manifest.json", "{}"));
  const auto top = *storage.list("");
  ASSERT_EQ(top.size(), 1u);
  EXPECT_TRUE(top[0].folder);
  const auto inner = *storage.list("step-1-c1");
  ASSERT_EQ(inner.size(), 2u);
  EXPECT_EQ(inner[0].name, "manifest.json");
  EXPECT_EQ(inner[1].bytes, 5u);
  EXPECT_FALSE(inner[1].folder);
}

TEST_P(StorageContract, a_folder_is_removed_with_all_that_is_in_it_and_no_other) {
  ASSERT_TRUE(write("step-1-c1/shard", "1"));
  ASSERT_TRUE(storage.replace("step-1-c1/manifest.json", "{}"));
  ASSERT_TRUE(write("step-2-c1/shard", "2"));
  ASSERT_TRUE(storage.remove_folder("step-1-c1"));
  EXPECT_THAT(names(""), ::testing::ElementsAre("step-2-c1"));
}

TEST_P(StorageContract, what_returned_without_an_error_survives_a_power_loss) {
  ASSERT_TRUE(write("step-1-c1/shard", "shard"));
  ASSERT_TRUE(storage.replace("step-1-c1/manifest.json", "manifest"));
  ASSERT_TRUE(storage.create("claims/1.json", "claim"));
  ASSERT_TRUE(write("step-0-c1/shard", "old"));
  ASSERT_TRUE(storage.remove_folder("step-0-c1"));
  auto unfinished = *storage.write("step-2-c1/shard");
  ASSERT_TRUE(unfinished->append(std::as_bytes(std::span("gone", 4))));
  unfinished.reset();
  place->lose_power();
  EXPECT_EQ(*storage.read("step-1-c1/shard", 100), "shard");
  EXPECT_EQ(*storage.read("step-1-c1/manifest.json", 100), "manifest");
  EXPECT_EQ(*storage.read("claims/1.json", 100), "claim");
  EXPECT_TRUE(names("step-0-c1").empty());
}

template <typename T>
std::unique_ptr<Place> make() {
  return std::make_unique<T>();
}
INSTANTIATE_TEST_SUITE_P(Storages, StorageContract,
                         ::testing::Values(
#ifdef PITCREW_HAS_S3
                             std::pair{"bucket", &make<BucketPlace>},
#endif
                             std::pair{"folder", &make<FolderPlace>}, std::pair{"memory", &make<MemoryPlace>}),
                         [](const auto& info) { return info.param.first; });

TEST(StoragePaths, unknown_schemes_are_refused_by_name) {
  const auto opened = open_storage(posix_file_system(), "gs://bucket");
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, Code::kUnsupported);
  EXPECT_THAT(opened.error().message, ::testing::HasSubstr("gs://bucket: unknown scheme"));
}

}  // namespace
}  // namespace pitcrew::trainer
