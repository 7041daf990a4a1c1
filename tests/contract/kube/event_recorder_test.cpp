#include "lib/kube/runtime/event_recorder.hpp"

#include "tests/contract/kube/memory_world.hpp"

namespace pitcrew::contract {
namespace {

using kube::Event;
using kube::EventRecorder;
using kube::Verb;

class EventRecorderTest : public MemoryWorld {
 protected:
  void record(const std::string& name = "p", const std::string& reason = "NodeLost",
              const std::string& note = "node n1 is gone") {
    recorder.record({"v1", "Pod", "ns", name, "uid-" + name}, "Warning", reason, "Recover", note);
  }
  std::vector<Event> events() {
    std::vector<Event> all;
    server.for_each(Event::type(), [&](const kube::Payload& payload) { all.push_back(**payload.as<Event>()); });
    return all;
  }

  kube::Client client{loop, transport, 1};
  EventRecorder recorder{loop, client, 2, {.instance = "op-0"}};
};

TEST_F(EventRecorderTest, an_event_is_written_once_with_what_people_ask_for) {
  record();
  loop.run_for(seconds(1));
  ASSERT_EQ(events().size(), 1u);
  const Event event = events().front();
  EXPECT_EQ(event.regarding.name, "p");
  EXPECT_EQ(event.reason, "NodeLost");
  EXPECT_EQ(event.note, "node n1 is gone");
  EXPECT_EQ(event.reporting_controller, "pitcrew.dev/operator");
  EXPECT_EQ(event.reporting_instance, "op-0");
  EXPECT_EQ(event.series_count, 0);
}

TEST_F(EventRecorderTest, bug_18_a_storm_of_one_event_is_a_handful_of_writes) {
  for (int i = 0; i < 10'000; ++i) {
    record();
    loop.run_for(milliseconds(50));
  }
  loop.run_for(minutes(20));
  ASSERT_EQ(events().size(), 1u);
  EXPECT_EQ(events().front().series_count, 10'000);
  EXPECT_LE(server.writes(Event::type()), 4u);  // first, second, when it fell silent, and perhaps a refresh
}

TEST_F(EventRecorderTest, bug_18_many_kinds_about_one_object_are_limited) {
  for (int i = 0; i < 1000; ++i) record("p", "Reason" + std::to_string(i));
  loop.run_for(minutes(1));
  EXPECT_EQ(events().size(), 25u);
  EXPECT_EQ(recorder.metrics().dropped, 975u);
}

TEST_F(EventRecorderTest, a_dying_rack_is_bounded_by_the_queue) {
  transport.set_connected(false);
  for (int i = 0; i < 3000; ++i) record("p" + std::to_string(i));
  EXPECT_LE(recorder.queued(), 1008u);
  EXPECT_GE(recorder.metrics().dropped, 1990u);
}

TEST_F(EventRecorderTest, what_the_server_refuses_for_now_is_tried_again_and_then_dropped) {
  fail(Verb::kCreate, 3, {.before = Error(Code::kUnavailable, "refused")});
  record();
  loop.run_for(minutes(2));
  EXPECT_EQ(events().size(), 1u);
  fail(Verb::kCreate, 1000, {.before = Error(Code::kUnavailable, "refused")});
  record("q");
  loop.run_for(minutes(10));
  EXPECT_EQ(recorder.queued(), 0u);
  EXPECT_EQ(recorder.metrics().dropped, 1u);
}

TEST_F(EventRecorderTest, a_long_note_is_cut_between_characters) {
  std::string note;
  for (int i = 0; i < 1000; ++i) note += "ä";
  record("p", "Long", note);
  loop.run_for(seconds(1));
  const std::string written = events().front().note;
  EXPECT_LE(written.size(), 1024u);
  EXPECT_TRUE(written.ends_with("ä..."));
}

TEST_F(EventRecorderTest, flushing_waits_for_what_is_queued_and_no_longer_than_told) {
  record();
  bool flushed = false;
  recorder.flush(seconds(5), [&] { flushed = true; });
  EXPECT_FALSE(flushed);
  loop.run_for(seconds(1));
  EXPECT_TRUE(flushed);
  transport.set_connected(false);
  record("q");
  flushed = false;
  recorder.flush(seconds(5), [&] { flushed = true; });
  loop.run_for(seconds(4));
  EXPECT_FALSE(flushed);
  loop.run_for(seconds(2));
  EXPECT_TRUE(flushed);
}

TEST_F(EventRecorderTest, silence_costs_nothing) {
  record();
  loop.run_for(minutes(30));
  const uint64_t tasks = loop.executed();
  loop.run_for(hours(10));
  EXPECT_EQ(loop.executed(), tasks + 1);  // the API server's own: the Event's hour is over
  EXPECT_EQ(server.count(Event::type()), 0u);
}

}  // namespace
}  // namespace pitcrew::contract
