#include <cstdio>
#include <cstdlib>

#include <poll.h>

#include "lib/base/clock.hpp"
#include "trainer/app/commands.hpp"
#include "trainer/app/config_file.hpp"
#include "trainer/app/messages.hpp"
#include "trainer/app/signals.hpp"
#include "trainer/checkpoint/launcher_client.hpp"
#include "trainer/comm/tcp_comm.hpp"
#include "trainer/train/trainer.hpp"

namespace pitcrew::trainer {
namespace {

// How long a rank that lost a peer stays where there is no launcher: long enough for all to have seen the same.
constexpr Duration kAloneAfterLoss = seconds(2);

int fail(const Messages& messages, int code, const std::string& message) {
  messages.complain(message);
  return code;
}

// A rank that lost a peer is a witness, not a cause: it says whom it lost and waits for the launcher to end it.
int wait_for_word(const TrainConfig& config, const RankEnvironment& environment, const Outcome& outcome,
                  page::Writer& page, const Clock& clock, const Messages& messages) {
  page.set_phase(page::Phase::kLostPeer);
  fail(messages, 0, outcome.message);
  const bool alone = environment.launcher.empty();
  if (!alone) {
    const launcher_socket::Evidence evidence{Rank(environment.rank), "lost-peer", outcome.message, outcome.lost_peer};
    // A connection of its own: the other one was given up together with the checkpointer.
    const auto told = connect_launcher(environment.launcher)->call(evidence);
    if (!told) fail(messages, 0, "the launcher was not told: " + told.error().message);
  }
  const Instant until = clock.now() + (alone ? kAloneAfterLoss : config.lost_peer_wait);
  while (!stop_signalled() && clock.now() < until) poll(nullptr, 0, 50);
  return exit_code::kTryAgain;
}

// The last collectives, for whoever asks why the epoch ended: into the log, and into a file beside the rank's log where
// the launcher keeps logs.
void dump(const FlightRecorder& recorder, const RankEnvironment& environment, const Messages& messages) {
  const std::string text = recorder.text();
  messages.complain("last collectives:\n" + text.substr(0, text.find_last_not_of('\n') + 1));
  const char* folder = std::getenv("PITCREW_RANK_LOGS");
  if (folder == nullptr || *folder == '\0') return;
  const std::string path = std::string(folder) + "/rank-" + std::to_string(environment.rank) + ".collectives.log";
  if (const Status written = replace_file(posix_file_system(), path, text); !written)
    fail(messages, 0, written.error().message);
}

}  // namespace

int run_train(const std::string& path, const std::vector<std::string>& sets) {
  install_stop_signals();
  auto environment = read_rank_environment(getenv);
  Messages messages(LogFormat::kPlain, environment ? *environment : RankEnvironment());
  if (!environment) return fail(messages, exit_code::kBadConfiguration, environment.error().message);
  install_backtrace_signal(environment->rank);
  auto config = load_config(path, sets);
  if (!config) return fail(messages, exit_code::kBadConfiguration, config.error().message);
  messages = Messages(config->log_format, *environment);

  auto fault = PlantedFault::read(getenv, environment->rank);
  if (!fault) return fail(messages, exit_code::kBadConfiguration, fault.error().message);

  const RealClock clock;
  page::Writer page;
  if (!environment->progress.empty()) {
    auto opened = page::Writer::open(environment->progress, environment->local_rank);
    if (!opened) return fail(messages, exit_code::kTryAgain, opened.error().message);
    page = std::move(*opened);
  }
  std::unique_ptr<LauncherClient> launcher;
  if (!environment->launcher.empty()) launcher = connect_launcher(environment->launcher);

  TcpSettings settings;
  settings.rank = environment->rank;
  settings.size = environment->size;
  settings.master_address = environment->master_address;
  settings.master_port = environment->master_port;
  settings.job = environment->job.uid;
  settings.term = environment->job.term.value;
  settings.epoch = environment->epoch.value;
  settings.connect_timeout = config->connect_timeout;
  settings.collective_timeout = config->collective_timeout;
  settings.cancelled = stop_signalled;
  const bool divided = config->parallel.shards > 1 || config->parallel.tensor > 1;
  // Training, checkpoints, groups; and the last one for PeerWatch.
  auto comms = TcpComm::connect(settings, 3 + (divided ? kMeshTraffics : 0));
  if (!comms) {
    const Code code = comms.error().code;
    if (code == Code::kCancelled) return exit_code::kDone;
    return fail(messages, code == Code::kInvalidArgument ? exit_code::kBadConfiguration : exit_code::kTryAgain,
                comms.error().message);
  }

  TrainerServices services;
  services.training = (*comms)[0].get();
  services.checkpoints = environment->size > 1 ? (*comms)[1].get() : nullptr;
  if (divided) services.mesh = groups_over({&*(*comms)[2], &*(*comms)[3], &*(*comms)[4], &*(*comms)[5]});
  PeerWatch watch(std::move(comms->back()));
  services.watch = &watch;
  services.launcher = launcher.get();
  services.page = &page;
  services.clock = &clock;
  services.files = &posix_file_system();
  services.stop_asked = stop_signalled;
  services.print = [&messages](const std::string& line) { messages.print(line); };
  static FlightRecorder recorder;  // a signal may come until the very end
  services.recorder = &recorder;
  show_collectives(&recorder);
  services.fault = *fault ? &**fault : nullptr;
  services.log = messages.log();
  const Outcome outcome = train(*config, *environment, services);
  if (outcome.exit_code != 0 || outcome.lost_peer) dump(recorder, *environment, messages);
  if (outcome.lost_peer) return wait_for_word(*config, *environment, outcome, page, clock, messages);
  if (outcome.exit_code != 0) return fail(messages, outcome.exit_code, outcome.message);
  return exit_code::kDone;
}

}  // namespace pitcrew::trainer
