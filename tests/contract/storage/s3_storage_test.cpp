// What is S3's own, beside the contract of every storage: parts, unfinished uploads, pages, lost answers, servers that
// ask for less, and two writers.
#include "trainer/checkpoint/s3/s3_storage.hpp"

#include <atomic>

#include <gmock/gmock.h>
#include <stdlib.h>

#include "lib/base/random.hpp"
#include "tests/contract/storage/http_play.hpp"
#include "tests/contract/storage/s3_server.hpp"
#include "trainer/checkpoint/catalogue.hpp"
#include "trainer/checkpoint/checkpointer.hpp"
#include "trainer/checkpoint/testing.hpp"

namespace pitcrew::trainer {
namespace {

using testing::HttpPlay;
using testing::S3Server;
using Action = HttpPlay::Action;

constexpr size_t kMiB = size_t{1} << 20;
// The smallest parts that S3 takes.
constexpr s3::PartUpload::Settings kSmallParts{.part_bytes = 5 * kMiB, .parallel = 3};
constexpr char kSlowDown[] =
    "<?xml version=\"1.0\"?><Error><Code>SlowDown</Code><Message>Reduce your request rate</Message></Error>";

std::string bytes_of(size_t size, uint64_t seed) {
  Random random(seed);
  std::string text(size, '\0');
  for (size_t at = 0; at + 8 <= size; at += 8) {
    const uint64_t word = random();
    std::memcpy(text.data() + at, &word, 8);
  }
  return text;
}

class S3Storage : public ::testing::Test {
 protected:
  void SetUp() override {
    PITCREW_NEEDS_S3_SERVER();
    path = S3Server::shared()->new_path();
  }
  std::unique_ptr<Storage> open(uint16_t port = 0, s3::Client::Settings settings = {}) {
    auto opened = s3::open_s3_storage(path, S3Server::shared()->variables(port), clock, settings, kSmallParts);
    EXPECT_TRUE(opened.ok());
    return std::move(*opened);
  }
  // Behind the storage's back.
  std::unique_ptr<s3::Client> client() {
    const auto variables = S3Server::shared()->variables();
    return std::make_unique<s3::Client>(*s3::locate(path, variables), variables, clock, s3::Client::Settings{});
  }
  static Status write(Storage& storage, const std::string& name, const std::string& content) {
    PITCREW_ASSIGN(const auto upload, storage.write(name));
    for (size_t at = 0; at < content.size(); at += kMiB) {
      const auto piece = std::as_bytes(std::span(content)).subspan(at, std::min(kMiB, content.size() - at));
      PITCREW_TRY(upload->append(piece));
    }
    return upload->finish();
  }
  static std::string read(Storage& storage, const std::string& name) {
    const auto text = storage.read(name, 64 * kMiB);
    return text ? *text : text.error().message;
  }
  static std::vector<std::string> names(Storage& storage, const std::string& folder) {
    std::vector<std::string> all;
    const auto listed = storage.list(folder);
    EXPECT_TRUE(listed) << listed.error().message;
    for (const auto& entry : *listed) all.push_back(entry.name);
    return all;
  }

  const RealClock clock;
  std::string path;
};

TEST_F(S3Storage, a_shard_of_several_parts_reads_back_whole_and_in_ranges_that_cross_them) {
  const auto storage = open();
  const std::string content = bytes_of(17 * kMiB + 12345, 1);
  ASSERT_TRUE(write(*storage, "step-1-c1/shard-0", content));
  EXPECT_TRUE(read(*storage, "step-1-c1/shard-0") == content);
  const auto file = *storage->open("step-1-c1/shard-0");
  EXPECT_EQ(*file->size(), content.size());
  std::string range(9 * kMiB, '\0');
  ASSERT_TRUE(file->read(std::as_writable_bytes(std::span(range)), 3 * kMiB + 7));
  EXPECT_TRUE(range == content.substr(3 * kMiB + 7, range.size()));
  EXPECT_TRUE(client()->unfinished("")->empty());
  EXPECT_THAT(names(*storage, "step-1-c1"), ::testing::ElementsAre("shard-0"));
}

TEST_F(S3Storage, an_object_that_is_replaced_while_it_is_read_is_not_mixed) {
  const auto storage = open();
  ASSERT_TRUE(write(*storage, "step-1-c1/shard-0", "first"));
  const auto file = *storage->open("step-1-c1/shard-0");
  ASSERT_TRUE(write(*storage, "step-1-c1/shard-0", "other"));
  std::string content(5, '\0');
  const Status got = file->read(std::as_writable_bytes(std::span(content)), 0);
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().code, Code::kDataLoss) << got.error().message;
}

TEST_F(S3Storage, parts_of_a_writer_that_was_killed_are_found_and_removed_by_the_next_epoch) {
  const auto storage = open();
  const auto dead = client();
  const std::string key = dead->location().prefix + s3::key_of("step-000000000004-c1/shard-00000-of-00001.safetensors");
  const auto upload = dead->begin_parts(key);
  ASSERT_TRUE(upload) << upload.error().message;
  const std::string part = bytes_of(5 * kMiB, 2);
  ASSERT_TRUE(dead->put_part(key, *upload, 1, std::as_bytes(std::span(part))));
  EXPECT_THAT(names(*storage, ""), ::testing::ElementsAre("step-000000000004-c1"));
  EXPECT_TRUE(names(*storage, "step-000000000004-c1").empty());

  ASSERT_TRUE(remove_unfinished(*storage, 2, {}));
  EXPECT_TRUE(dead->unfinished(dead->location().prefix)->empty());
  EXPECT_TRUE(names(*storage, "").empty());
  // The dead one, should it live after all, finds that its upload is gone.
  EXPECT_FALSE(dead->complete_parts(key, *upload, {{1, "\"x\""}}, 5 * kMiB));
}

TEST_F(S3Storage, an_upload_that_is_dropped_leaves_no_parts) {
  const auto storage = open();
  {
    const auto upload = *storage->write("step-1-c1/shard-0");
    const std::string content = bytes_of(11 * kMiB, 3);
    ASSERT_TRUE(upload->append(std::as_bytes(std::span(content))));
  }
  EXPECT_TRUE(client()->unfinished("")->empty());
  EXPECT_TRUE(names(*storage, "").empty());
}

TEST_F(S3Storage, lists_are_put_together_from_their_pages) {
  const auto storage = open(0, {.page = 3});
  std::vector<std::string> expected;
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(storage->replace("claims/" + std::to_string(i), "x"));
    ASSERT_TRUE(write(*storage, "step-7-c1/shard-" + std::to_string(i), "x"));
    expected.push_back("shard-" + std::to_string(i));
  }
  EXPECT_EQ(names(*storage, "claims").size(), 10u);
  EXPECT_EQ(names(*storage, "step-7-c1"), expected);
  ASSERT_TRUE(storage->remove_folder("step-7-c1"));
  EXPECT_TRUE(names(*storage, "step-7-c1").empty());
}

TEST_F(S3Storage, every_third_request_that_is_told_to_slow_down_is_sent_again) {
  std::atomic<int> requests{0}, refused{0};
  HttpPlay play(
      [&](const HttpPlay::Request&) {
        if (++requests % 3 != 0) return Action{};
        ++refused;
        return Action{Action::Kind::kAnswer, refused % 2 == 0 ? 500 : 503, kSlowDown};
      },
      S3Server::shared()->port());
  const auto storage = open(play.port());
  const std::string content = bytes_of(12 * kMiB, 4);
  ASSERT_TRUE(write(*storage, "step-1-c1/shard-0", content));
  ASSERT_TRUE(storage->create("claims/1.json", "mine"));
  EXPECT_TRUE(read(*storage, "step-1-c1/shard-0") == content);
  EXPECT_EQ(storage->create("claims/1.json", "other").error().code, Code::kAlreadyExists);
  ASSERT_TRUE(storage->remove_folder("step-1-c1"));
  EXPECT_THAT(names(*storage, ""), ::testing::ElementsAre("claims"));
  EXPECT_GT(refused, 4);
}

TEST_F(S3Storage, a_server_that_never_stops_to_refuse_is_given_up_with_its_words) {
  HttpPlay play([](const HttpPlay::Request&) { return Action{Action::Kind::kAnswer, 503, kSlowDown}; });
  const auto storage = open(play.port(), {.attempts = 3});
  const Status done = storage->replace("claims/1.json", "x");
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, Code::kUnavailable);
  EXPECT_THAT(done.error().message,
              ::testing::HasSubstr("SlowDown: Reduce your request rate; given up after 3 attempts"));
  EXPECT_EQ(play.seen().size(), 3u);
}

TEST_F(S3Storage, it_waits_as_long_as_the_server_says) {
  std::atomic<int> requests{0};
  HttpPlay play(
      [&](const HttpPlay::Request&) {
        if (++requests > 1) return Action{};
        return Action{Action::Kind::kAnswer, 503, kSlowDown, {{"Retry-After", "1"}}};
      },
      S3Server::shared()->port());
  const auto storage = open(play.port());
  const Instant began = clock.now();
  ASSERT_TRUE(storage->replace("claims/1.json", "x"));
  EXPECT_GE(clock.now() - began, milliseconds(990));
}

TEST_F(S3Storage, a_claim_whose_answer_is_lost_is_ours_and_anothers_is_not) {
  std::atomic<bool> lose{false};
  HttpPlay play(
      [&](const HttpPlay::Request& request) {
        const bool now = request.method == "PUT" && lose.exchange(false);
        return Action{now ? Action::Kind::kForwardAndLose : Action::Kind::kForward};
      },
      S3Server::shared()->port());
  const auto storage = open(play.port());
  lose = true;
  const Status created = storage->create("claims/1.json", "mine");
  EXPECT_TRUE(created) << created.error().message;
  EXPECT_FALSE(lose);
  // The same content, by another: its first answer is lost as well.
  lose = true;
  const Status again = storage->create("claims/1.json", "mine");
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, Code::kAlreadyExists);
}

TEST_F(S3Storage, completing_parts_whose_answer_is_lost_succeeds_once) {
  std::atomic<int> lost{0};
  HttpPlay play(
      [&](const HttpPlay::Request& request) {
        const bool completes = request.method == "POST" && request.target.find("uploadId=") != std::string::npos;
        return Action{completes && lost++ == 0 ? Action::Kind::kForwardAndLose : Action::Kind::kForward};
      },
      S3Server::shared()->port());
  const auto storage = open(play.port());
  const std::string content = bytes_of(11 * kMiB, 5);
  const Status done = write(*storage, "step-1-c1/shard-0", content);
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_GE(lost, 2);
  EXPECT_TRUE(read(*storage, "step-1-c1/shard-0") == content);
}

TEST_F(S3Storage, the_key_of_kms_is_asked_for_with_every_object) {
  HttpPlay play([](const HttpPlay::Request& request) {
    const bool begins = request.target.ends_with("?uploads=");
    return Action{Action::Kind::kAnswer, 200, begins ? "<R><UploadId>u</UploadId></R>" : "<R/>", {{"ETag", "\"x\""}}};
  });
  auto set = S3Server::shared()->environment(play.port());
  set["PITCREW_S3_KMS_KEY"] = "arn:aws:kms:us-east-1:1:key/k";
  const auto storage = *s3::open_s3_storage(path, testing::variables_of(set), clock, {}, kSmallParts);
  ASSERT_TRUE(storage->create("claims/1.json", "x"));
  ASSERT_TRUE(storage->replace("claims/1.beat", "x"));
  ASSERT_TRUE(write(*storage, "step-1-c1/shard-0", bytes_of(6 * kMiB, 6)));
  int objects = 0;
  for (const auto& request : play.seen()) {
    const bool makes_object = request.target.ends_with("?uploads=") ||
                              (request.method == "PUT" && request.target.find('?') == std::string::npos);
    objects += makes_object ? 1 : 0;
    EXPECT_EQ(request.headers.contains("x-amz-server-side-encryption"), makes_object) << request.target;
    if (!makes_object) continue;
    EXPECT_EQ(request.headers.at("x-amz-server-side-encryption"), "aws:kms");
    EXPECT_EQ(request.headers.at("x-amz-server-side-encryption-aws-kms-key-id"), "arn:aws:kms:us-east-1:1:key/k");
    EXPECT_THAT(request.headers.at("authorization"),
                ::testing::HasSubstr("x-amz-server-side-encryption-aws-kms-key-id"));
  }
  EXPECT_EQ(objects, 3);
}

TEST_F(S3Storage, errors_of_a_user_name_the_remedy) {
  const auto says = [&](const std::string& at, std::map<std::string, std::string> set) {
    const auto storage = s3::open_s3_storage(at, testing::variables_of(std::move(set)), clock, {.attempts = 2});
    if (!storage) return storage.error();
    return (*storage)->replace("claims/1.json", "x").error();
  };
  auto set = S3Server::shared()->environment();
  Error error = says("s3://no-such-bucket/p", set);
  EXPECT_EQ(error.code, Code::kInvalidArgument);
  EXPECT_THAT(error.message, ::testing::HasSubstr("NoSuchBucket"));
  EXPECT_THAT(error.message, ::testing::HasSubstr("make the bucket, or correct checkpoint.path"));
  set["AWS_SECRET_ACCESS_KEY"] = "wrong";
  error = says(path, set);
  EXPECT_EQ(error.code, Code::kUnauthenticated);
  EXPECT_THAT(error.message, ::testing::HasSubstr("SignatureDoesNotMatch"));
  set.erase("AWS_SECRET_ACCESS_KEY");
  EXPECT_THAT(says(path, set).message, ::testing::HasSubstr("set both"));
  set.erase("AWS_ACCESS_KEY_ID");
  EXPECT_THAT(says(path, set).message, ::testing::HasSubstr("give the pod's service account an IAM role"));

  HttpPlay old([](const HttpPlay::Request&) {
    return Action{Action::Kind::kAnswer, 501, "<Error><Code>NotImplemented</Code></Error>"};
  });
  error = says(path, S3Server::shared()->environment(old.port()));
  EXPECT_EQ(error.code, Code::kUnsupported);
  EXPECT_EQ(old.seen().size(), 1u);

  HttpPlay play([](const HttpPlay::Request&) {
    return Action{Action::Kind::kAnswer,
                  301,
                  "<Error><Code>PermanentRedirect</Code></Error>",
                  {{"x-amz-bucket-region", "eu-west-1"}}};
  });
  EXPECT_THAT(says(path, S3Server::shared()->environment(play.port())).message,
              ::testing::HasSubstr("set AWS_REGION=eu-west-1"));
}

TEST_F(S3Storage, what_is_under_way_ends_at_once_when_it_is_aborted) {
  HttpPlay play([](const HttpPlay::Request&) {
    return Action{Action::Kind::kAnswer, 503, kSlowDown, {{"Retry-After", "60"}}};
  });
  const auto storage = open(play.port());
  Status done;
  {
    const std::jthread writer([&] { done = storage->replace("claims/1.json", "x"); });
    while (play.seen().empty()) std::this_thread::yield();
    storage->abort();
  }
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, Code::kCancelled) << done.error().message;
}

// Through libpitcrew_s3.so, as pitcrew-train comes to it.
class S3Checkpoints : public S3Storage {
 protected:
  void SetUp() override {
    S3Storage::SetUp();
    if (IsSkipped()) return;
    for (const auto& [name, value] : S3Server::shared()->environment()) ::setenv(name.c_str(), value.c_str(), 1);
  }
  testing::Epoch epoch(uint32_t ranks) {
    testing::Epoch epoch{.ranks = ranks, .number = ++number_};
    epoch.checkpoint.path = path;
    epoch.checkpoint.every_steps = 1;
    return epoch;
  }
  uint64_t number_ = 0;
};

TEST_F(S3Checkpoints, what_four_ranks_save_three_restore_bit_for_bit) {
  ASSERT_TRUE(testing::run_epoch(epoch(4), [](testing::RankView rank) {
    ASSERT_TRUE(rank.checkpointer.restore({}));
    testing::save_steps(rank, 1, 5, {.durable = true});
    ASSERT_TRUE(rank.checkpointer.finish(Step(5), Json{{"next", 6}}));
  }));
  const Status done = testing::run_epoch(epoch(3), [](testing::RankView rank) {
    const auto restored = rank.checkpointer.restore({});
    ASSERT_TRUE(restored) << restored.error().message;
    ASSERT_TRUE(restored->has_value());
    EXPECT_EQ((*restored)->step, Step(5));
    EXPECT_EQ((*restored)->source, page::Source::kObjectStorage);
    EXPECT_TRUE(rank.state.holds(5));
  });
  EXPECT_TRUE(done) << done.error().message;
  const auto found = list_checkpoints(posix_file_system(), path);
  ASSERT_TRUE(found) << found.error().message;
  EXPECT_EQ(found->size(), 3u);  // keep
  const auto verified = verify_checkpoint(posix_file_system(), path + "/" + found->front().name);
  ASSERT_TRUE(verified) << verified.error().message;
  EXPECT_TRUE(verified->intact) << verified->problem;
}

TEST_F(S3Checkpoints, of_two_living_writers_the_older_epoch_commits_nothing_more) {
  const auto zombie = epoch(1), successor = epoch(1), reader = epoch(2);
  ASSERT_TRUE(testing::run_epoch(zombie, [&](testing::RankView rank) {
    ASSERT_TRUE(rank.checkpointer.restore({}));
    testing::save_steps(rank, 1, 4, {.durable = true});
    ASSERT_TRUE(testing::run_epoch(successor, [](testing::RankView next) {
      ASSERT_TRUE(next.checkpointer.restore({}));
      testing::save_steps(next, 3, 3, {.durable = true});
    }));
    std::vector<SaveOutcome> outcomes;
    testing::save_steps(rank, 5, 5, {.durable = true}, &outcomes);
    ASSERT_EQ(outcomes.size(), 1u);
    EXPECT_EQ(outcomes[0].result, SaveOutcome::Result::kFailed);
    EXPECT_THAT(outcomes[0].message, ::testing::HasSubstr("is newer than ours"));
  }));
  ASSERT_TRUE(testing::run_epoch(reader, [](testing::RankView rank) {
    const auto restored = rank.checkpointer.restore({});
    ASSERT_TRUE(restored) << restored.error().message;
    ASSERT_TRUE(restored->has_value());
    EXPECT_EQ((*restored)->step, Step(3));  // the successor's: newer than the zombie's step 4
    EXPECT_TRUE(rank.state.holds(3));
  }));
}

}  // namespace
}  // namespace pitcrew::trainer
