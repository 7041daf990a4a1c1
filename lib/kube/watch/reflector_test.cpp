#include "lib/kube/watch/reflector.hpp"

#include <gtest/gtest.h>

namespace pitcrew::kube {
namespace {

// Drives a Reflector and writes down what it wants, one word a line: readable traces instead of variants.
class ReflectorTest : public testing::Test {
 protected:
  std::string step(const Reflector::Input& input) {
    std::string text;
    for (const auto& action : reflector.step(input, now, chance)) {
      if (!text.empty()) text += " ";
      if (const auto* list = std::get_if<Reflector::SendList>(&action)) {
        text += "list(" + list->resource_version + "," + list->continue_token + "," + std::to_string(list->limit) + ")";
      } else if (std::holds_alternative<Reflector::FinishList>(action)) {
        text += "finish";
      } else if (std::holds_alternative<Reflector::Deliver>(action)) {
        text += "deliver";
      } else if (std::holds_alternative<Reflector::Collect>(action)) {
        text += "collect";
      } else if (const auto* watch = std::get_if<Reflector::OpenWatch>(&action)) {
        text += (watch->initial ? "stream(" : "watch(") + watch->resource_version + ")";
        timeout = watch->timeout;
      } else if (std::holds_alternative<Reflector::CloseWatch>(action)) {
        text += "close";
      } else if (const auto* sleep = std::get_if<Reflector::Sleep>(&action)) {
        text += "sleep";
        slept = sleep->duration;
      }
    }
    return text;
  }
  std::string started() { return step(Reflector::Started{}); }
  std::string page(const std::string& version, const std::string& next = "") {
    return step(Reflector::Page{version, next});
  }
  std::string event(WatchEventType type, const std::string& version) {
    return step(Reflector::Event{type, version, {}});
  }
  std::string error_event(Code code) { return step(Reflector::Event{WatchEventType::kError, "", Error(code, "x")}); }
  std::string ended(Status status = {}) { return step(Reflector::WatchEnded{std::move(status)}); }
  std::string woken() {
    now += slept;
    return step(Reflector::Woken{});
  }
  void watching(const std::string& version = "10") {
    started();
    page(version);
  }

  Reflector reflector;
  Instant now{seconds(1000)};
  double chance = 0;
  Duration slept{0};
  Duration timeout{0};
};

TEST_F(ReflectorTest, lists_what_the_cache_has_then_watches_from_there) {
  EXPECT_EQ(started(), "list(0,,500)");
  EXPECT_EQ(page("7", "more"), "list(0,more,500)");
  EXPECT_FALSE(reflector.listed());
  EXPECT_EQ(page("7"), "finish watch(7) sleep");
  EXPECT_TRUE(reflector.listed());
  EXPECT_EQ(event(WatchEventType::kAdded, "8"), "deliver");
  EXPECT_EQ(reflector.resource_version(), "8");
}

TEST_F(ReflectorTest, always_asks_the_server_to_end_the_watch) {
  chance = 0.5;
  watching();
  EXPECT_EQ(timeout, seconds(450));
}

TEST_F(ReflectorTest, bookmarks_move_the_version_and_deliver_nothing) {
  watching();
  EXPECT_EQ(event(WatchEventType::kBookmark, "99"), "");
  now += minutes(5);
  EXPECT_EQ(ended(), "watch(99) sleep");
}

TEST_F(ReflectorTest, bug_01_a_version_that_has_expired_is_listed_again) {
  watching();
  event(WatchEventType::kAdded, "11");
  EXPECT_EQ(ended(Error(Code::kGone, "410")), "list(11,,0)");
  EXPECT_EQ(page("50"), "finish watch(50) sleep");
}

TEST_F(ReflectorTest, bug_02_410_as_an_error_event_inside_a_200_is_listed_again) {
  watching();
  event(WatchEventType::kAdded, "11");
  EXPECT_EQ(error_event(Code::kGone), "close list(11,,0)");
}

TEST_F(ReflectorTest, bug_02_429_as_an_error_event_backs_off_and_keeps_the_version) {
  watching();
  EXPECT_EQ(step(Reflector::Event{WatchEventType::kError, "", Error(Code::kTooManyRequests, "busy", seconds(9))}),
            "close sleep");
  EXPECT_EQ(slept, seconds(9));
  EXPECT_EQ(woken(), "watch(10) sleep");
}

TEST_F(ReflectorTest, bug_03_a_silent_connection_is_given_up_and_opened_again) {
  watching();
  now += seconds(60);
  event(WatchEventType::kBookmark, "12");
  slept = seconds(30);
  EXPECT_EQ(woken(), "sleep");  // heard 30 s ago
  EXPECT_EQ(woken(), "close watch(12) sleep");
}

TEST_F(ReflectorTest, bug_11_a_list_without_a_version_is_never_watched_from) {
  started();
  EXPECT_EQ(page("0"), "sleep");
  EXPECT_EQ(woken(), "list(0,,500)");
  EXPECT_EQ(page(""), "sleep");
}

TEST_F(ReflectorTest, an_expired_list_is_asked_for_the_newest_at_once_and_once) {
  watching("10");
  ended(Error(Code::kGone, "410"));
  EXPECT_EQ(step(Reflector::ListFailed{Error(Code::kGone, "410")}), "list(,,500)");
  EXPECT_EQ(step(Reflector::ListFailed{Error(Code::kGone, "410")}), "sleep");
}

TEST_F(ReflectorTest, a_server_that_is_behind_what_was_seen_is_asked_for_its_newest) {
  watching("10");
  ended(Error(Code::kGone, "410"));
  EXPECT_EQ(step(Reflector::ListFailed{Error(Code::kDeadlineExceeded, "Too large resource version: 10, current: 3")}),
            "list(,,500)");
}

TEST_F(ReflectorTest, a_continue_token_that_expires_starts_the_list_again) {
  started();
  page("7", "more");
  EXPECT_EQ(step(Reflector::ListFailed{Error(Code::kGone, "410")}), "list(,,500)");
}

TEST_F(ReflectorTest, a_refused_connection_keeps_the_version_and_backs_off) {
  watching();
  EXPECT_EQ(ended(Error(Code::kUnavailable, "refused")), "sleep");
  EXPECT_EQ(slept, milliseconds(800));
  EXPECT_EQ(woken(), "watch(10) sleep");
}

TEST_F(ReflectorTest, back_off_doubles_is_capped_and_is_reset_by_health) {
  watching();
  std::vector<int64_t> waits;
  for (int i = 0; i < 8; ++i) {
    ended(Error(Code::kUnavailable, "refused"));
    waits.push_back(std::chrono::duration_cast<milliseconds>(slept).count());
    if (woken().starts_with("list")) page("10");
  }
  EXPECT_EQ(waits, (std::vector<int64_t>{800, 1600, 3200, 6400, 12800, 25600, 30000, 30000}));
  event(WatchEventType::kAdded, "11");
  now += minutes(3);
  ended(Error(Code::kUnavailable, "reset"));
  EXPECT_EQ(slept, milliseconds(800));
}

TEST_F(ReflectorTest, jitter_spreads_clients_up_to_twice_the_wait) {
  chance = 0.999;
  watching();
  ended(Error(Code::kUnavailable, "refused"));
  EXPECT_GT(slept, milliseconds(1590));
  EXPECT_LE(slept, milliseconds(1600));
}

TEST_F(ReflectorTest, a_very_short_watch_without_an_event_is_backed_off) {
  watching();
  now += milliseconds(10);
  EXPECT_EQ(ended(), "sleep");
  EXPECT_EQ(slept, milliseconds(800));
}

TEST_F(ReflectorTest, a_watch_that_expires_again_and_again_is_no_hot_loop) {
  watching();
  EXPECT_EQ(error_event(Code::kGone), "close list(10,,0)");
  page("20");
  EXPECT_EQ(error_event(Code::kGone), "close sleep");
}

TEST_F(ReflectorTest, an_internal_error_lists_again_after_backing_off) {
  watching();
  EXPECT_EQ(error_event(Code::kInternal), "close sleep");
  EXPECT_EQ(woken(), "list(10,,0)");
}

TEST_F(ReflectorTest, a_doubted_watch_is_opened_again_from_where_it_is) {
  EXPECT_EQ(step(Reflector::Doubted{}), "");
  watching();
  event(WatchEventType::kModified, "17");
  EXPECT_EQ(step(Reflector::Doubted{}), "close watch(17) sleep");
}

TEST_F(ReflectorTest, events_of_an_unknown_kind_and_late_answers_do_nothing) {
  watching();
  EXPECT_EQ(event(WatchEventType::kUnknown, "99"), "");
  EXPECT_EQ(reflector.resource_version(), "10");
  EXPECT_EQ(page("99"), "");
  EXPECT_EQ(step(Reflector::ListFailed{Error(Code::kInternal, "x")}), "");
  EXPECT_EQ(started(), "");
}

class StreamingReflectorTest : public ReflectorTest {
 protected:
  StreamingReflectorTest() { reflector = Reflector({.streaming_list = true}); }
  std::string mark(const std::string& version) {
    return step(Reflector::Event{WatchEventType::kBookmark, version, {}, true});
  }
};

TEST_F(StreamingReflectorTest, the_first_objects_come_as_events_until_the_mark_and_the_stream_goes_on) {
  EXPECT_EQ(started(), "stream() sleep");
  EXPECT_EQ(event(WatchEventType::kAdded, "9"), "collect");
  EXPECT_EQ(event(WatchEventType::kBookmark, "3"), "");
  EXPECT_FALSE(reflector.listed());
  EXPECT_EQ(mark("10"), "finish");
  EXPECT_TRUE(reflector.listed());
  EXPECT_EQ(event(WatchEventType::kModified, "11"), "deliver");
  EXPECT_EQ(ended(), "watch(11) sleep");
}

// The synthetic events are in no order: what they say of versions is never watched from.
TEST_F(StreamingReflectorTest, bug_11_a_stream_cut_before_its_mark_leaves_no_version) {
  started();
  event(WatchEventType::kAdded, "99");
  EXPECT_EQ(ended(Error(Code::kUnavailable, "cut")), "close sleep");
  EXPECT_EQ(reflector.resource_version(), "");
  EXPECT_EQ(woken(), "stream() sleep");
}

TEST_F(StreamingReflectorTest, a_server_that_refuses_it_is_listed_from_then_on) {
  started();
  EXPECT_EQ(ended(Error(Code::kInvalidArgument, "sendInitialEvents is forbidden")), "close list(0,,500)");
  EXPECT_EQ(page("7"), "finish watch(7) sleep");
  EXPECT_EQ(error_event(Code::kGone), "close list(7,,0)");
}

TEST_F(StreamingReflectorTest, a_version_that_has_expired_is_streamed_anew_from_the_newest) {
  started();
  mark("10");
  EXPECT_EQ(error_event(Code::kGone), "close stream(10) sleep");
  EXPECT_EQ(error_event(Code::kGone), "close stream() sleep");
  EXPECT_EQ(mark("20"), "finish");
}

TEST_F(StreamingReflectorTest, silence_before_the_mark_is_given_up) {
  started();
  EXPECT_EQ(woken(), "close sleep");
  EXPECT_EQ(woken(), "stream() sleep");
}

}  // namespace
}  // namespace pitcrew::kube
