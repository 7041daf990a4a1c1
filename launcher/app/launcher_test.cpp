// The whole program, as a process of its own, against an operator made for the test.
#include "launcher/app/launcher.hpp"

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "launcher/supervise/proc.hpp"
#include "launcher/testing/fake_operator.hpp"
#include "lib/base/json.hpp"
#include "lib/net/http_client.hpp"
#include "lib/net/http_server.hpp"

namespace pitcrew::launcher {
namespace {

using namespace api::channel;
using testing::EpochBuilder;
using testing::Pod;

const std::string kRank = PITCREW_TEST_RANK;

class LauncherTest : public ::testing::Test {
 protected:
  LauncherTest() : root_(testing::make_temporary_folder()), operator_(loop_) {}
  ~LauncherTest() override {
    if (system(("rm -rf " + root_).c_str()) != 0) ADD_FAILURE() << "could not remove " << root_;
  }

  Hello hello(const Pod& pod) { return operator_.expect<Hello>(pod.name()).value_or(Hello{}); }
  // Starts a launcher, and an epoch in which it is alone.
  Hello start_alone(Pod& pod, const std::vector<std::string>& command, uint32_t processes = 1, uint64_t number = 1) {
    pod.start(command, {}, processes);
    const Hello said = hello(pod);
    operator_.send(pod.name(), epoch_of({said}, processes, number).for_slot(0));
    return said;
  }
  static EpochBuilder epoch_of(std::vector<Hello> pods, uint32_t processes, uint64_t number) {
    return {.number = number, .processes = processes, .pods = std::move(pods)};
  }
  static EpochId id(uint64_t number, uint64_t term = 1) { return {Term(term), EpochNumber(number)}; }
  bool wait(const std::function<bool()>& condition) { return operator_.wait(condition); }
  std::optional<Progress> expect_step(const Pod& pod, uint64_t step) {
    return operator_.expect<Progress>(pod.name(), [&](const Progress& p) { return p.step >= Step(step); });
  }

  net::AsioLoop loop_;
  std::string root_;
  testing::FakeOperator operator_;
};

TEST_F(LauncherTest, says_hello_first_with_its_token_and_who_it_is) {
  Pod pod(loop_, operator_, root_, "a");
  pod.start({kRank, "sleep"});
  const Hello said = hello(pod);
  EXPECT_EQ(operator_.tokens().at(0), "Bearer token-of-a");
  EXPECT_EQ(said.job_uid, "job-1");
  EXPECT_EQ(said.pod_uid, "uid-a");
  EXPECT_EQ(said.node, "node-a");
  EXPECT_EQ(said.boot.size(), 16u);
  EXPECT_NE(said.peer_port, 0u);
  EXPECT_FALSE(said.running);
  EXPECT_EQ(said.seen, EpochId{});
}

TEST_F(LauncherTest, runs_an_epoch_reports_the_exit_and_runs_the_next) {
  Pod pod(loop_, operator_, root_, "a");
  const Hello said = start_alone(pod, {kRank, "train", "5", "100000", "0", "20"}, 2);
  const auto exited = operator_.expect<Exited>("a");
  ASSERT_TRUE(exited);
  EXPECT_EQ(exited->epoch, id(1));
  EXPECT_EQ(exited->rank, Rank(0));
  EXPECT_EQ(exited->code, 3);
  EXPECT_EQ(exited->exception, "RuntimeError: bad step 20");
  EXPECT_EQ(exited->step, Step(20));
  EXPECT_FALSE(exited->done);

  operator_.send("a", epoch_of({said}, 2, 2).for_slot(0));
  const auto aborted = operator_.expect<Aborted>("a");
  ASSERT_TRUE(aborted);
  EXPECT_TRUE(aborted->clean);
  EXPECT_EQ(aborted->epoch, id(1));
  const auto progress = operator_.expect<Progress>(
      "a", [](const Progress& p) { return p.epoch.number == EpochNumber(2) && p.step > Step(25); });
  ASSERT_TRUE(progress);
  EXPECT_EQ(progress->phase, "training");
  EXPECT_EQ(progress->resumed_source, "none");
  EXPECT_EQ(progress->total_steps, 100000u);
  EXPECT_TRUE(progress->loss);
}

TEST_F(LauncherTest, its_log_lines_say_the_epoch_once_there_is_one) {
  Pod pod(loop_, operator_, root_, "a");
  const Hello said = start_alone(pod, {kRank, "train", "1", "30"}, 1, 6);
  ASSERT_TRUE(operator_.expect<Exited>("a"));
  operator_.send("a", epoch_of({said}, 1, 7).for_slot(0));
  ASSERT_TRUE(operator_.expect<Exited>("a", [](const Exited& e) { return e.epoch.number == EpochNumber(7); }));
  operator_.send("a", Finish{id(7), true});
  ASSERT_EQ(pod.exit_code(), 0);
  std::vector<std::pair<std::string, uint64_t>> lines;
  std::istringstream text(pod.output());
  for (std::string line; std::getline(text, line);) {
    if (!line.starts_with('{')) continue;
    const auto json = parse_json(line);
    ASSERT_TRUE(json.ok()) << line;
    lines.emplace_back((*json)["message"], json->value("epoch", uint64_t{0}));
  }
  const auto has = [&](const char* message, uint64_t epoch) {
    return std::find(lines.begin(), lines.end(), std::pair<std::string, uint64_t>(message, epoch)) != lines.end();
  };
  EXPECT_TRUE(has("started", 0)) << pod.output();
  EXPECT_TRUE(has("a new epoch", 6)) << pod.output();
  EXPECT_TRUE(has("a rank has ended", 6)) << pod.output();
  EXPECT_TRUE(has("a rank has ended", 7)) << pod.output();
  EXPECT_TRUE(has("the job is over", 7)) << pod.output();
}

TEST_F(LauncherTest, a_job_that_reaches_its_end_says_done_and_finishes) {
  for (const bool success : {true, false}) {
    Pod pod(loop_, operator_, root_, success ? "good" : "bad");
    start_alone(pod, {kRank, "train", "1", "30"});
    const auto exited = operator_.expect<Exited>(pod.name());
    ASSERT_TRUE(exited);
    EXPECT_TRUE(exited->done);
    EXPECT_EQ(exited->code, 0);
    operator_.send(pod.name(), Finish{id(1), success});
    EXPECT_EQ(pod.exit_code(), success ? 0 : 1);
    EXPECT_NE(pod.output().find("[rank 0] done\n"), std::string::npos) << pod.output();
  }
}

TEST_F(LauncherTest, ranks_get_torchruns_variables_and_ours) {
  Pod pod(loop_, operator_, root_, "a");
  pod.set("PITCREW_PATH_MAP", R"({"/checkpoints": "/local/ckpt"})");
  pod.start({kRank, "environment"});
  EpochBuilder builder = epoch_of({hello(pod)}, 1, 7);
  builder.checkpoint.path = "/checkpoints/llama";
  builder.checkpoint.memory_steps = 20;
  Epoch epoch = builder.for_slot(0);
  epoch.resume = ResumePoint{Step(120), 3, Place::kMemory};
  operator_.send("a", epoch);
  ASSERT_TRUE(operator_.expect<Exited>("a"));
  operator_.send("a", Finish{id(7), true});
  EXPECT_EQ(pod.exit_code(), 0);
  const auto line = [&](const std::string& text) {
    return pod.output().find("[rank 0] " + text + "\n") != std::string::npos;
  };
  EXPECT_TRUE(line("RANK=0"));
  EXPECT_TRUE(line("MASTER_PORT=29500"));
  EXPECT_TRUE(line("PITCREW_EPOCH=7"));
  EXPECT_TRUE(line("PITCREW_MEMORY=" + pod.memory()));
  EXPECT_TRUE(line("PITCREW_PROGRESS=" + pod.folder() + "/run/progress"));
  EXPECT_NE(pod.output().find("\"path\":\"/local/ckpt/llama\""), std::string::npos) << pod.output();
  EXPECT_NE(pod.output().find("PITCREW_RESUME={"), std::string::npos);
}

TEST_F(LauncherTest, refuses_lower_epochs_and_other_jobs) {
  Pod pod(loop_, operator_, root_, "a");
  const Hello said = start_alone(pod, {kRank, "train", "5", "100000"}, 1, 5);
  ASSERT_TRUE(expect_step(pod, 5));
  EpochBuilder lower = epoch_of({said}, 1, 4);
  operator_.send("a", lower.for_slot(0));
  operator_.send("a", Stop{id(4), false, {}, "an old leader"});
  operator_.send("a", Finish{id(4), true});
  Epoch other = epoch_of({said}, 1, 9).for_slot(0);
  other.job.uid = "job-2";
  operator_.send("a", other);
  // The same epoch again, as a new leader may say it: nothing starts twice.
  operator_.send("a", epoch_of({said}, 1, 5).for_slot(0));
  const auto progress = operator_.expect<Progress>("a", [](const Progress& p) { return p.step > Step(100); });
  ASSERT_TRUE(progress);
  EXPECT_EQ(progress->epoch, id(5)) << "nothing of it had an effect";
  // A higher term with a lower number is newer.
  EpochBuilder newer = epoch_of({said}, 1, 2);
  newer.term = 2;
  operator_.send("a", newer.for_slot(0));
  ASSERT_TRUE(operator_.expect<Progress>("a", [](const Progress& p) { return p.epoch == id(2, 2); }));
}

TEST_F(LauncherTest, trains_on_while_the_operator_is_away_and_says_again_what_matters) {
  Pod pod(loop_, operator_, root_, "a");
  start_alone(pod, {kRank, "train", "5", "100000"}, 2);
  ASSERT_TRUE(expect_step(pod, 5));
  operator_.go_away();
  ASSERT_TRUE(wait([&, asked = loop_.now()] { return loop_.now() - asked > milliseconds(300); }));
  operator_.heard().clear();
  operator_.come_back();
  const Hello back = hello(pod);
  EXPECT_TRUE(back.running);
  EXPECT_EQ(back.seen, id(1));
  const auto progress = operator_.expect<Progress>("a");
  ASSERT_TRUE(progress);
  EXPECT_GT(progress->step, Step(30));

  // A rank ends while nobody listens; whoever comes hears of it, and the next one too.
  operator_.go_away();
  const auto ranks = descendants_of(pod.pid());
  ASSERT_EQ(ranks.size(), 2u);
  kill(ranks[1], SIGABRT);
  ASSERT_TRUE(wait([&] { return pod.output().find("a rank has ended") != std::string::npos; }));
  for (int i = 0; i < 2; ++i) {
    operator_.heard().clear();
    operator_.come_back();
    hello(pod);
    const auto exited = operator_.expect<Exited>("a");
    ASSERT_TRUE(exited);
    EXPECT_EQ(exited->reason, "killed by SIGABRT");
    operator_.go_away();
  }
}

TEST_F(LauncherTest, a_program_without_the_page_is_done_when_it_exits_with_0) {
  Pod pod(loop_, operator_, root_, "a");
  start_alone(pod, {kRank, "exit", "0"});
  const auto exited = operator_.expect<Exited>("a");
  ASSERT_TRUE(exited);
  EXPECT_TRUE(exited->done);
}

TEST_F(LauncherTest, a_memory_checkpoint_that_counts_is_told_with_its_name) {
  Pod pod(loop_, operator_, root_, "a");
  start_alone(pod, {"/bin/sh", "-c",
                    kRank + R"( ask '{"id":1,"op":"counted","checkpoint":"step-40-c2","step":40}'; sleep 1000)"});
  const auto saved = operator_.expect<Saved>("a");
  ASSERT_TRUE(saved);
  EXPECT_FALSE(saved->durable);
  EXPECT_EQ(saved->step, Step(40));
  EXPECT_EQ(saved->path, "step-40-c2") << "the operator reads the claim from it";
}

TEST_F(LauncherTest, a_rotated_token_is_used_at_the_next_connection) {
  Pod pod(loop_, operator_, root_, "a");
  pod.start({kRank, "sleep"});
  hello(pod);
  std::ofstream(pod.folder() + "/token") << "another";
  operator_.go_away();
  operator_.come_back();
  hello(pod);
  EXPECT_EQ(operator_.tokens().back(), "Bearer another");
}

TEST_F(LauncherTest, a_planned_stop_lets_the_ranks_save_and_an_abort_does_not) {
  Pod pod(loop_, operator_, root_, "a");
  const Hello said = start_alone(pod, {kRank, "train", "5", "100000"}, 2);
  ASSERT_TRUE(expect_step(pod, 5));
  operator_.send("a", Stop{id(1), true, seconds(60), "suspend"});
  const auto stopped = operator_.expect<Stopped>("a");
  ASSERT_TRUE(stopped);
  EXPECT_TRUE(stopped->clean);
  EXPECT_NE(pod.output().find("saved at step"), std::string::npos);

  operator_.send("a", epoch_of({said}, 2, 2).for_slot(0));
  ASSERT_TRUE(operator_.expect<Progress>("a", [](const Progress& p) { return p.epoch == id(2) && p.step > Step(5); }));
  operator_.send("a", Stop{id(2), false, {}, "a peer is lost"});
  const auto aborted = operator_.expect<Aborted>("a");
  ASSERT_TRUE(aborted);
  EXPECT_TRUE(aborted->clean);
  EXPECT_TRUE(descendants_of(pod.pid()).empty());
  for (const auto& heard : operator_.heard())
    EXPECT_FALSE(std::holds_alternative<Exited>(heard.message)) << "told to end: no failure";
}

TEST_F(LauncherTest, a_sigterm_from_outside_lets_the_ranks_save_before_the_end) {
  Pod pod(loop_, operator_, root_, "a");
  start_alone(pod, {kRank, "train", "5", "100000"}, 2);
  ASSERT_TRUE(expect_step(pod, 5));
  pod.kill(SIGTERM);
  const auto stopped = operator_.expect<Stopped>("a");
  ASSERT_TRUE(stopped);
  EXPECT_TRUE(stopped->clean);
  EXPECT_EQ(pod.exit_code(), 143);
  EXPECT_NE(pod.output().find("[rank 1] saved at step"), std::string::npos);
}

TEST_F(LauncherTest, a_save_is_asked_for_on_the_page_and_its_answer_carries_the_request) {
  Pod pod(loop_, operator_, root_, "a");
  start_alone(
      pod, {"/bin/sh", "-c",
            kRank + R"( ask '{"id":1,"op":"saved","step":40,"path":"/c/step-40-c1","bytes":7,"request":1}'; )" +
                R"(while [ ! -e )" + pod.folder() + "/go ]; do sleep 0.01; done; " + kRank +
                R"( ask '{"id":2,"op":"saved","step":60,"path":"/c/step-60-c1","bytes":8,"request":1}'; sleep 1000)"});
  const auto scheduled = operator_.expect<Saved>("a");
  ASSERT_TRUE(scheduled);
  EXPECT_EQ(scheduled->request, "");
  EXPECT_EQ(scheduled->path, "/c/step-40-c1");
  operator_.send("a", Save{id(1), "req-1"});
  std::ofstream(pod.folder() + "/go") << "";
  const auto answered = operator_.expect<Saved>("a", [](const Saved& s) { return s.step == Step(60); });
  ASSERT_TRUE(answered);
  EXPECT_EQ(answered->request, "req-1");
  EXPECT_TRUE(answered->durable);
}

TEST_F(LauncherTest, a_hang_is_reported_once_with_all_ranks_and_stacks) {
  Pod pod(loop_, operator_, root_, "a");
  pod.start({kRank, "train", "5", "100000", "30"}, {}, 2);
  EpochBuilder builder = epoch_of({hello(pod)}, 2, 1);
  builder.stall_after = seconds(2);
  operator_.send("a", builder.for_slot(0));
  const auto stalled = operator_.expect<Stalled>("a");
  ASSERT_TRUE(stalled);
  EXPECT_EQ(stalled->step, Step(29));
  EXPECT_EQ(stalled->limit_seconds, 2);
  ASSERT_EQ(stalled->ranks.size(), 2u);
  EXPECT_TRUE(stalled->ranks[0].in_collective);
  EXPECT_FALSE(stalled->ranks[1].in_collective) << "the culprit";
  EXPECT_NE(stalled->stacks.find("train_step at step.cpp:42"), std::string::npos) << stalled->stacks;
  EXPECT_TRUE(wait([&] { return pod.output().find("==== pitcrew stacks begin: no progress") != std::string::npos; }));
  // Whoever leads next hears of it too, as long as it lasts.
  operator_.go_away();
  operator_.come_back();
  hello(pod);
  EXPECT_TRUE(operator_.expect<Stalled>("a"));
}

TEST_F(LauncherTest, stacks_are_collected_when_asked_for) {
  Pod pod(loop_, operator_, root_, "a");
  start_alone(pod, {kRank, "train", "5", "100000"}, 2);
  ASSERT_TRUE(expect_step(pod, 5));
  operator_.send("a", Diagnose{id(1), "req-7"});
  const auto stacks = operator_.expect<Stacks>("a");
  ASSERT_TRUE(stacks);
  EXPECT_EQ(stacks->request, "req-7");
  EXPECT_NE(stacks->text.find("rank 1, pid"), std::string::npos);
  EXPECT_TRUE(
      wait([&] { return pod.output().find("==== pitcrew stacks begin: request req-7 ====") != std::string::npos; }));
}

TEST_F(LauncherTest, a_launcher_that_died_comes_back_with_what_it_had_seen_and_held) {
  Pod pod(loop_, operator_, root_, "a");
  const Hello said = start_alone(pod, {kRank, "train", "5", "100000"}, 2);
  ASSERT_TRUE(expect_step(pod, 5));
  mkdir((pod.memory() + "/own/step-40-c2").c_str(), 0770);
  std::ofstream(pod.memory() + "/counted/step-40-c2") << "";
  pod.kill(SIGKILL);
  EXPECT_EQ(pod.exit_code(), 128 + SIGKILL);

  pod.start({kRank, "train", "5", "100000"}, {}, 2);
  const Hello back = hello(pod);
  EXPECT_EQ(back.seen, id(1));
  EXPECT_FALSE(back.running);
  EXPECT_NE(back.boot, said.boot);
  ASSERT_EQ(back.held.size(), 1u);
  EXPECT_EQ(back.held[0], (ResumePoint{Step(40), 2, Place::kMemory}));
  // The epoch whose ranks have run is not run again; the next one is.
  operator_.send("a", epoch_of({back}, 2, 1).for_slot(0));
  operator_.send("a", epoch_of({back}, 2, 2).for_slot(0));
  const auto progress = operator_.expect<Progress>("a");
  ASSERT_TRUE(progress);
  EXPECT_EQ(progress->epoch, id(2));
}

TEST_F(LauncherTest, files_are_pushed_to_the_peer_and_its_silence_is_told) {
  Pod a(loop_, operator_, root_, "a"), b(loop_, operator_, root_, "b");
  mkdir((a.memory() + "/own").c_str(), 0770);
  mkdir((a.memory() + "/own/step-20-c1").c_str(), 0770);
  std::ofstream(a.memory() + "/own/step-20-c1/shard-0.safetensors") << std::string(300'000, 'w');
  a.start(
      {"/bin/sh", "-c",
       kRank + R"( ask '{"id":9,"op":"push","checkpoint":"step-20-c1","files":["shard-0.safetensors"]}'; sleep 1000)"});
  b.start({kRank, "sleep"});
  EpochBuilder builder = epoch_of({hello(a), hello(b)}, 1, 1);
  builder.checkpoint.memory_steps = 20;
  operator_.send("a", builder.for_slot(0));
  operator_.send("b", builder.for_slot(1));
  ASSERT_TRUE(wait([&] { return a.output().find("\"copies\":[1]") != std::string::npos; })) << a.output();
  std::ifstream copy(b.memory() + "/peer/0/step-20-c1/shard-0.safetensors");
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(copy), {}), std::string(300'000, 'w'));

  b.kill(SIGSTOP);
  const auto silent = operator_.expect<Unreachable>("a");
  ASSERT_TRUE(silent);
  EXPECT_EQ(silent->slot, Slot(1));
  EXPECT_GE(silent->seconds, 4);
  b.kill(SIGCONT);
  const auto back = operator_.expect<Unreachable>("a", [](const Unreachable& u) { return u.seconds == 0; });
  EXPECT_TRUE(back);
}

TEST_F(LauncherTest, an_epoch_that_cannot_begin_is_told) {
  Pod pod(loop_, operator_, root_, "a");
  pod.start({kRank, "sleep"});
  Epoch epoch = epoch_of({hello(pod)}, 1, 1).for_slot(0);
  epoch.table[0].ranks = 4;
  epoch.world_size = 4;
  operator_.send("a", epoch);
  const auto exited = operator_.expect<Exited>("a");
  ASSERT_TRUE(exited);
  EXPECT_EQ(exited->kind, ExitKind::kStartFailed);
  EXPECT_NE(exited->reason.find("4 ranks"), std::string::npos);
}

TEST_F(LauncherTest, a_spare_starts_nothing_until_a_table_gives_it_a_slot) {
  Pod pod(loop_, operator_, root_, "a");
  pod.start({kRank, "train", "5", "100000"});
  const Hello said = hello(pod);
  operator_.send("a", epoch_of({said}, 1, 1).for_slot(std::nullopt));
  ASSERT_TRUE(wait([&] { return pod.output().find("standing by as a spare") != std::string::npos; }));
  EXPECT_TRUE(descendants_of(pod.pid()).empty());
  operator_.send("a", epoch_of({said}, 1, 2).for_slot(0));
  EXPECT_TRUE(expect_step(pod, 1));
}

TEST_F(LauncherTest, what_the_pod_lacks_is_named_all_at_once) {
  Pod pod(loop_, operator_, root_, "a");
  pod.set("PITCREW_JOB_UID", "");
  pod.set("PITCREW_RUN_FOLDER", "/no/such/folder");
  pod.start({kRank, "sleep"});
  EXPECT_EQ(pod.exit_code(), 78);
  EXPECT_NE(pod.output().find("PITCREW_JOB_UID"), std::string::npos);
  EXPECT_NE(pod.output().find("/no/such/folder"), std::string::npos);
}

TEST_F(LauncherTest, metrics_show_the_ranks_pages) {
  Pod pod(loop_, operator_, root_, "a");
  // A free port, for a moment of this process's: the launcher is told a number.
  uint16_t port = 0;
  {
    const auto probe = net::HttpServer::listen(loop_, {.address = {"", 0}}, {});
    port = (*probe)->address().port;
  }
  pod.set("PITCREW_METRICS_PORT", std::to_string(port));
  start_alone(pod, {kRank, "train", "5", "100000"}, 2);
  ASSERT_TRUE(expect_step(pod, 5));
  std::string text;
  const auto exchange = net::http_request(loop_, {.address = {"127.0.0.1", port}}, {.target = "/metrics"},
                                          {.on_done = [&](Result<net::HttpResponse> response) {
                                            text = response ? response->body : response.error().message;
                                          }});
  ASSERT_TRUE(wait([&] { return !text.empty(); }));
  EXPECT_NE(text.find("pitcrew_rank_step{rank=\"1\"} "), std::string::npos) << text;
  EXPECT_NE(text.find("pitcrew_rank_phase{rank=\"0\",phase=\"training\"} 1"), std::string::npos);
  EXPECT_NE(text.find("pitcrew_channel_connected 1"), std::string::npos);
}

TEST_F(LauncherTest, the_python_helper_speaks_page_and_socket) {
  if (system("python3 -c pass >/dev/null 2>&1") != 0) GTEST_SKIP() << "not run: python3 is not installed";
  Pod pod(loop_, operator_, root_, "a");
  std::ofstream(pod.folder() + "/train.py") << R"(
import signal, time
import pitcrew_progress as pitcrew
signal.signal(signal.SIGTERM, signal.SIG_IGN)
progress, launcher = pitcrew.Progress(), pitcrew.Launcher()
progress.totals(50, tokens_per_sample=512)
progress.resumed(7, pitcrew.PEER_MEMORY)
progress.phase(pitcrew.TRAINING)
progress.enter_collective(3)
progress.leave_collective()
progress.gauge("grad_norm", 1.5)
progress.step_done(8, samples=64, loss=0.5)
while not progress.save_requested():
    time.sleep(0.01)
launcher.saved(8, "/c/step-8", 100, request=progress.serve_save())
progress.durable(8)
launcher.evidence(0, "nonfinite", "a NaN", peer=4)
try:
    launcher.fetch(5, "../x", [(0, 1)], "y")
except RuntimeError as error:
    print("refused:", error, flush=True)
while not progress.stop_requested():
    time.sleep(0.01)
progress.phase(pitcrew.DONE)
)";
  pod.set("PYTHONPATH", PITCREW_SOURCE_DIR "/examples");
  pod.set("PYTHONDONTWRITEBYTECODE", "1");
  start_alone(pod, {"python3", pod.folder() + "/train.py"});
  const auto progress = expect_step(pod, 8);
  ASSERT_TRUE(progress) << pod.output();
  EXPECT_EQ(progress->loss, 0.5);
  EXPECT_EQ(progress->samples, 64u);
  EXPECT_EQ(progress->total_steps, 50u);
  EXPECT_EQ(progress->resumed_step, Step(7));
  EXPECT_EQ(progress->resumed_source, "peer memory");
  operator_.send("a", Save{id(1), "req-1"});
  const auto saved = operator_.expect<Saved>("a");
  ASSERT_TRUE(saved);
  EXPECT_EQ(saved->request, "req-1");
  EXPECT_EQ(saved->bytes, 100u);
  const auto evidence = operator_.expect<Evidence>("a");
  ASSERT_TRUE(evidence);
  EXPECT_EQ(evidence->peer, Rank(4));
  EXPECT_TRUE(wait([&] { return pod.output().find("refused: launcher: not found") != std::string::npos; }))
      << pod.output();
  operator_.send("a", Stop{id(1), true, seconds(60), "suspend"});
  const auto exited = operator_.expect<Exited>("a");
  ASSERT_TRUE(exited);
  EXPECT_TRUE(exited->done);
}

// The number to hold is 15 MB. Sanitizers have memory of their own.
TEST_F(LauncherTest, holds_less_than_15_MB_with_eight_idle_ranks) {
  if (!PITCREW_LAUNCHER_IS_STATIC) GTEST_SKIP() << "not run: a sanitizer's build has other memory";
  Pod pod(loop_, operator_, root_, "a");
  start_alone(pod, {kRank, "sleep"}, 8);
  ASSERT_TRUE(operator_.expect<Progress>("a"));
  const uint64_t bytes = anonymous_memory(pod.pid());
  printf("RssAnon of a launcher with a channel and eight idle ranks: %.1f MB\n", static_cast<double>(bytes) / 1e6);
  RecordProperty("rss_anon_bytes", std::to_string(bytes));
  EXPECT_GT(bytes, 0u);
  EXPECT_LT(bytes, 15'000'000u);
}

}  // namespace
}  // namespace pitcrew::launcher
