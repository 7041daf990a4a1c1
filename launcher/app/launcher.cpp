#include "launcher/app/launcher.hpp"

#include <algorithm>
#include <csignal>
#include <map>

#include <dirent.h>
#include <unistd.h>

#include "launcher/app/channel_link.hpp"
#include "launcher/app/metrics_text.hpp"
#include "launcher/app/outbox.hpp"
#include "launcher/app/rank_environment.hpp"
#include "launcher/app/run_state.hpp"
#include "launcher/memory/memory_service.hpp"
#include "launcher/progress/report.hpp"
#include "launcher/supervise/supervisor.hpp"
#include "launcher/supervise/text.hpp"
#include "lib/api/launcher_contract.hpp"
#include "lib/net/crypto.hpp"
#include "lib/net/http_server.hpp"

namespace pitcrew::launcher {
namespace {

namespace channel = api::channel;

constexpr size_t kStallStacks = 16 * 1024;
constexpr size_t kAskedStacks = 32 * 1024;
constexpr size_t kMostSaveRequests = 64;
constexpr Duration kFarewell = seconds(2);  // for the channel's last words
constexpr int kExitTerminated = 128 + SIGTERM;

// Device nodes as the container sees them: /dev/nvidia0, …
uint32_t count_gpus() {
  uint32_t count = 0;
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(opendir("/dev"), closedir);
  if (!dir) return 0;
  constexpr std::string_view kPrefix = "nvidia";
  while (const dirent* entry = readdir(dir.get())) {
    const std::string_view name = entry->d_name;
    if (name.starts_with(kPrefix) && name.size() > kPrefix.size() &&
        name.find_first_not_of("0123456789", kPrefix.size()) == std::string_view::npos) {
      ++count;
    }
  }
  return count;
}

std::string name_of(EpochId id) { return std::to_string(id.term.value) + "." + std::to_string(id.number.value); }

}  // namespace

struct Launcher::State {
  State(net::AsioLoop& l, Contract c, LauncherSettings s, Logger lg)
      : loop(l),
        contract(std::move(c)),
        settings(s),
        run_state(RunState::load(contract.run_folder)),
        log_plain(std::move(lg)) {
    log_epoch();
  }

  net::AsioLoop& loop;
  const Contract contract;
  const LauncherSettings settings;
  RunState run_state;
  const Logger log_plain;  // for what outlives epochs
  Logger log;              // says the newest epoch seen in every line
  std::string boot;
  Outbox outbox;

  std::unique_ptr<Supervisor> supervisor;
  std::unique_ptr<MemoryService> memory;
  std::unique_ptr<net::HttpServer> metrics;
  std::unique_ptr<ChannelLink> link;
  net::AsioLoop::WatchPtr signals;
  Loop::TimerPtr look_timer, farewell_timer;

  // The epoch that this launcher has taken part in since it started; its ranks run unless they have ended.
  std::optional<channel::Epoch> epoch;
  std::optional<channel::Epoch> next_epoch;  // begins when the ranks of the one before are gone
  bool has_ranks = false;                    // of `epoch` have been started
  bool aborting = false;
  bool stopping = false;
  Rank first_rank;
  std::optional<page::Watcher> page;
  std::optional<Judge> judge;
  std::vector<RankView> views;
  PageUse page_use;
  std::optional<Rank> lost_rank;
  std::map<Slot, channel::Unreachable> unreachable;  // what is so now: said again to whoever leads next
  channel::Progress told;
  std::optional<Instant> told_at;
  std::map<uint64_t, std::string> save_requests;  // the page's word → the request's id
  uint64_t save_word = 0;
  uint64_t refused_messages = 0;
  uint64_t stalls = 0;
  std::optional<int> exit_code;

  // ---- to the operator ----

  bool send(const channel::FromLauncher& message) { return link && link->send(message); }
  void send_kept(channel::FromLauncher message) {
    send(message);
    outbox.keep(std::move(message));
  }

  void say_hello() {
    channel::Hello hello;
    hello.job_uid = contract.job_uid;
    hello.pod_name = contract.pod_name;
    hello.pod_uid = contract.pod_uid;
    hello.node = contract.node;
    hello.boot = boot;
    hello.address = contract.pod_ip;
    hello.peer_port = memory->peer_port();
    hello.gpus = count_gpus();
    hello.seen = run_state.seen;
    hello.running = has_ranks && supervisor->any_alive() && !aborting;
    hello.held = memory->counted();
    send(hello);
    for (const auto& message : outbox.messages()) send(message);
    for (const auto& [slot, message] : unreachable) send(message);
    told_at.reset();
    if (epoch && has_ranks) report();
  }

  // ---- from the operator ----

  void on_message(channel::ToLauncher message) {
    std::visit([this](auto& m) { handle(m); }, message);
  }

  bool refuse(EpochId id, const char* what) {
    if (id >= run_state.seen) return false;
    ++refused_messages;
    log.warning("a message of an older epoch is refused",
                {{"what", what}, {"of", name_of(id)}, {"seen", name_of(run_state.seen)}});
    return true;
  }

  void handle(channel::Epoch& next) {
    if (next.job.uid != contract.job_uid) {
      ++refused_messages;
      log.error("an epoch of another job is refused", {{"job", next.job.uid}});
      return;
    }
    if (refuse(next.id, "epoch")) return;
    if (next.id == run_state.seen) {
      const bool known = (epoch && epoch->id == next.id) || (next_epoch && next_epoch->id == next.id);
      // Its ranks may have run before this launcher's restart: they must not start twice in one epoch.
      if (!known) log.warning("the epoch was begun before this launcher started; it needs a newer one");
      return;
    }
    saw(next.id);
    log.info("a new epoch", {{"term", next.id.term.value}, {"world", next.world_size}, {"resume", next.resume_hint}});
    next_epoch = std::move(next);
    outbox.clear();
    stopping = false;
    abort_then([this] { begin_next(); });
  }

  void handle(channel::Stop& stop) {
    if (refuse(stop.epoch, "stop")) return;
    if (stop.epoch > run_state.seen) saw(stop.epoch);
    next_epoch.reset();
    log.info("told to stop", {{"save", stop.save}, {"grace", to_string(stop.grace)}, {"reason", stop.reason}});
    if (!stop.save) {
      stopping = false;
      abort_then([] {});
      return;
    }
    stop_saving(stop.grace, stop.epoch, [] {});
  }

  void handle(channel::Save& save) {
    if (refuse(save.epoch, "save") || !page || !supervisor->any_alive()) return;
    page->request_save();
    ++save_word;
    if (save_requests.size() < kMostSaveRequests) save_requests[save_word] = save.request;
  }

  void handle(channel::Diagnose& diagnose) {
    if (refuse(diagnose.epoch, "diagnose")) return;
    supervisor->collect_stacks(kAskedStacks - 1024, [this, request = diagnose.request](std::string text) {
      print_stacks("request " + request, text);
      send(channel::Stacks{request, std::move(text)});
    });
  }

  void handle(channel::Finish& finish) {
    if (refuse(finish.epoch, "finish")) return;
    log.info("the job is over", {{"success", finish.success}});
    next_epoch.reset();
    const int code = finish.success ? api::launcher::kExitFinished : api::launcher::kExitFailed;
    abort_then([this, code] { end(code); });
  }

  // ---- epochs ----

  void save_state() {
    if (const Status saved = run_state.save(contract.run_folder); !saved) {
      log.error("the launcher's state can't be kept; a restart would not know the epoch",
                {{"error", saved.error().message}});
    }
  }

  void log_epoch() {
    const uint64_t number = run_state.seen.number.value;
    log = number > 0 ? log_plain.with({{"epoch", number}}) : log_plain;
  }

  void saw(EpochId id) {
    run_state.seen = id;
    log_epoch();
    save_state();
  }

  // Kills what runs, tells the operator of it, and goes on once nothing is left.
  void abort_then(std::function<void()> then) {
    const bool report = has_ranks && epoch;
    const EpochId id = epoch ? epoch->id : EpochId{};
    aborting = true;
    supervisor->abort([this, report, id, then = std::move(then)](const AbortResult& result) {
      if (report && has_ranks) {
        send_kept(channel::Aborted{id, result.clean, result.message});
        if (result.clean) has_ranks = false;
      }
      if (!result.clean) return abort_then(then);
      aborting = false;
      then();
    });
  }

  void begin_next() {
    if (!next_epoch) return;  // stopped meanwhile
    epoch = std::move(*next_epoch);
    next_epoch.reset();
    page.reset();
    judge.reset();
    views.clear();
    lost_rank.reset();
    unreachable.clear();
    save_requests.clear();
    save_word = 0;
    told = {};
    told_at.reset();
    has_ranks = false;

    const auto key = net::base64_decode(epoch->key);
    if (!key || key->size() != 32) {
      fail_start("the epoch's key is not 32 bytes of base64");
      return;
    }
    MemoryService::Epoch memory_epoch{epoch->id,    epoch->job.uid, epoch->slot,
                                      epoch->table, *key,           epoch->checkpoint.memory_copies};
    if (const Status set = memory->set_epoch(std::move(memory_epoch)); !set) {
      fail_start(set.error().message);
      return;
    }
    if (!epoch->slot) {
      log.info("standing by as a spare");
      return;
    }
    if (const Status started = start_ranks(); !started) fail_start(started.error().message);
  }

  Status start_ranks() {
    PITCREW_ASSIGN(const channel::TableEntry entry, own_entry(*epoch, contract.processes));
    first_rank = entry.first_rank;
    const RankPaths paths{contract.run_folder + "/progress", memory->socket_path()};
    PITCREW_ASSIGN(page, page::Watcher::create(paths.progress, entry.ranks, epoch->id));
    std::vector<RankStart> ranks;
    for (uint32_t i = 0; i < entry.ranks; ++i) {
      RankStart start;
      start.rank = Rank(first_rank.value + i);
      start.program = {contract.command, rank_environment(contract, *epoch, paths, i)};
      if (!contract.rank_logs.empty())
        start.log_path = contract.rank_logs + "/rank-" + std::to_string(start.rank.value) + ".log";
      ranks.push_back(std::move(start));
    }
    has_ranks = true;
    page_use.ranks_started(loop.now());
    PITCREW_TRY(supervisor->start(std::move(ranks)));
    JudgeSettings judging;
    judging.stall_after = epoch->stall_after;
    if (epoch->start_within > Duration(0)) judging.start_within = epoch->start_within;
    judging.slow_below = epoch->slow_below;
    judging.floor = settings.stall_floor;
    judging.interval = settings.look_every;
    judge.emplace(judging, entry.ranks, loop.now(), run_state.rhythm);
    look();
    return {};
  }

  // The epoch can't be begun here: told as a rank that could not start, so that the operator acts.
  void fail_start(const std::string& why) {
    log.error("the epoch can't be begun", {{"error", why}});
    channel::Exited exited;
    exited.epoch = epoch->id;
    exited.rank = first_rank;
    exited.kind = channel::ExitKind::kStartFailed;
    exited.code = api::launcher::kExitBadContract;
    exited.reason = why;
    send_kept(std::move(exited));
  }

  void stop_saving(Duration grace, EpochId id, std::function<void()> then) {
    if (!has_ranks || !supervisor->any_alive() || aborting) {
      send_kept(channel::Stopped{id, true});
      then();
      return;
    }
    if (stopping) return;
    stopping = true;
    page->request_stop();
    supervisor->stop(grace, [this, id, then = std::move(then)](bool clean) {
      if (!stopping) return;  // an abort came in between
      look();
      stopping = false;
      has_ranks = false;
      send_kept(channel::Stopped{id, clean});
      then();
    });
  }

  // ---- the ranks ----

  void on_exit(size_t local, const ExitCause& cause) {
    if (!epoch || !has_ranks) return;
    look();
    const page::LineCopy line = page ? page->line(static_cast<uint32_t>(local)) : page::LineCopy{};
    const bool done = line.phase == page::Phase::kDone;
    // Told to stop, and stopped: no failure. A rank that reached the end meanwhile has still reached it.
    if (stopping && !done) return;
    channel::Exited exited;
    exited.epoch = epoch->id;
    exited.rank = Rank(first_rank.value + static_cast<uint32_t>(local));
    exited.kind = cause.kind;
    exited.code = cause.code;
    exited.reason = cause.reason;
    exited.last_lines = cause.last_lines;
    exited.exception = cause.exception;
    exited.step = line.step;
    // A program that never wrote to the page has no other word for its end than 0.
    exited.done = (done || line.updates == 0) && cause.code == 0 && cause.kind == channel::ExitKind::kExited;
    log.info("a rank has ended", {{"rank", exited.rank.value}, {"reason", cause.reason}, {"step", exited.step.value}});
    send_kept(std::move(exited));
  }

  void refresh_views() {
    views.resize(supervisor->ranks());
    for (size_t i = 0; i < views.size(); ++i) {
      views[i].line = page->line(static_cast<uint32_t>(i));
      views[i].alive = supervisor->alive(i);
      views[i].output_blocked = supervisor->output_blocked(i);
    }
  }

  void look() {
    look_timer = loop.after(settings.look_every, [this] { look(); });
    if (!page || !judge || !has_ranks) return;
    refresh_views();
    if (supervisor->any_alive() && !aborting && !stopping) judge_ranks();
    if (!judge->stalled()) outbox.forget_stall();
    report();
  }

  void judge_ranks() {
    const Verdict verdict = judge->look(loop.now(), views);
    if (verdict.slow) {
      channel::Evidence slow;
      slow.epoch = epoch->id;
      slow.rank = Rank(first_rank.value + verdict.slow->straggler.value_or(0));
      slow.kind = "slow";
      char text[160];
      snprintf(text, sizeof text, "%.3g steps a second, the job's best were %.3g%s", verdict.slow->rate,
               verdict.slow->best, verdict.slow->straggler ? "; this rank waits the least for the others" : "");
      slow.message = text;
      log.warning("training has become slow", {{"rate", verdict.slow->rate}, {"best", verdict.slow->best}});
      send(slow);
    }
    if (!verdict.stall) return;
    ++stalls;
    save_state();  // so that the same place is not taken for a hang again after a restart
    channel::Stalled message = make_stalled(*verdict.stall, epoch->id, first_rank, views);
    log.error("no progress",
              {{"step", message.step.value},
               {"phase", message.phase},
               {"seconds", message.seconds},
               {"limit", message.limit_seconds},
               {"culprit", verdict.stall->culprit ? std::to_string(first_rank.value + *verdict.stall->culprit)
                                                  : "not on this pod"}});
    supervisor->collect_stacks(kStallStacks, [this, message](std::string text) mutable {
      if (!epoch || epoch->id != message.epoch || aborting) return;
      print_stacks("no progress for " + std::to_string(static_cast<int>(message.seconds)) + " s", text);
      message.stacks = std::move(text);
      // A hang that has passed meanwhile is said, and not again.
      if (judge->stalled()) {
        send_kept(std::move(message));
      } else {
        send(message);
      }
    });
  }

  void report() {
    if (!epoch || !page) return;
    refresh_views();
    channel::Progress progress =
        make_progress({epoch->id, first_rank, page->header(), views, judge ? judge->samples_per_second() : 0, lost_rank,
                       page_use.without_page(loop.now(), views)});
    const bool due = !told_at || loop.now() - *told_at >= settings.progress_every;
    const bool changed = !told_at || progress.step != told.step || progress.samples != told.samples ||
                         progress.tokens_per_second != told.tokens_per_second || progress.loss != told.loss;
    const bool matters = !told_at || important(told, progress);
    if (!matters && !(due && changed)) return;
    if (!send(progress)) return;
    told = std::move(progress);
    told_at = loop.now();
  }

  void print_stacks(const std::string& why, const std::string& text) {
    supervisor->print("==== pitcrew stacks begin: " + clean_text(why) + " ====\n" + text +
                      "==== pitcrew stacks end ====\n");
  }

  void on_saved(const launcher_socket::Saved& saved) {
    if (!epoch || !has_ranks) return;
    channel::Saved message;
    message.epoch = epoch->id;
    message.step = saved.step;
    message.durable = true;
    message.path = saved.path;
    message.bytes = saved.bytes;
    // One save answers every request made before it.
    for (auto request = save_requests.begin(); request != save_requests.end() && request->first <= saved.request;) {
      message.request = request->second;
      send_kept(message);
      request = save_requests.erase(request);
    }
    if (message.request.empty()) send_kept(std::move(message));
  }

  // From every launcher: a checkpoint of which enough pods hold their part can be started from.
  void on_counted(const std::string& checkpoint, Step step) {
    if (epoch && has_ranks) send_kept(channel::Saved{.epoch = epoch->id, .step = step, .path = checkpoint});
  }

  void on_evidence(const launcher_socket::Evidence& evidence) {
    if (!epoch || !has_ranks) return;
    if (evidence.kind == "lost-peer" && evidence.peer) lost_rank = evidence.peer;
    channel::Evidence message{epoch->id,
                              evidence.rank,
                              clean_text(evidence.kind.substr(0, 64)),
                              shorten(clean_text(evidence.message), 4096),
                              evidence.peer,
                              evidence.step,
                              clean_text(evidence.digest.substr(0, 128))};
    // What a step's bits say decides what its exit means, whoever leads when it is heard.
    if (evidence.step) {
      send_kept(std::move(message));
    } else {
      send(message);
    }
    report();
  }

  void on_silence(const Silence::Report& silence) {
    if (!epoch) return;
    const channel::Unreachable message{epoch->id, silence.slot, to_seconds(silence.silent)};
    unreachable.erase(silence.slot);
    if (silence.silent > Duration(0)) unreachable.emplace(silence.slot, message);
    send(message);
  }

  // ---- the end ----

  void on_terminate(int signal) {
    log.info("told to end from outside", {{"signal", signal_name(signal)}});
    next_epoch.reset();
    if (aborting) {
      end(kExitTerminated);
      return;
    }
    stop_saving(settings.grace, run_state.seen, [this] { end(kExitTerminated); });
  }

  void end(int code) {
    if (exit_code) return;
    exit_code = code;
    look_timer.reset();
    save_state();
    supervisor->drain(settings.drain);
    farewell_timer = loop.after(kFarewell, [this] { loop.stop(); });
    link->close([this] { loop.stop(); });
  }

  std::string metrics_page() {
    MetricsInput input;
    if (epoch) input.epoch = epoch->id;
    input.first_rank = first_rank;
    if (page && has_ranks) {
      refresh_views();
      input.header = page->header();
      input.ranks = views;
      for (size_t i = 0; i < views.size(); ++i) input.gauges.push_back(page->gauges(static_cast<uint32_t>(i)));
    }
    if (judge)
      input.tokens_per_second = judge->samples_per_second() * static_cast<double>(input.header.tokens_per_sample);
    input.connected = link->connected();
    input.output_pauses = static_cast<double>(supervisor->output_pauses());
    input.output_blocked_seconds = judge ? to_seconds(judge->output_blocked()) : 0;
    input.processes_reaped = static_cast<double>(supervisor->reaped());
    input.stalls = static_cast<double>(stalls);
    input.messages_refused = static_cast<double>(refused_messages);
    input.channel_attempts_failed = static_cast<double>(link->attempts_failed());
    input.memory_received_bytes = static_cast<double>(memory->counters().bytes_in);
    input.memory_sent_bytes = static_cast<double>(memory->counters().bytes_out);
    input.memory_requests_refused = static_cast<double>(memory->counters().refused);
    return metrics_text(input);
  }
};

Result<std::unique_ptr<Launcher>> Launcher::create(net::AsioLoop& loop, Contract contract, LauncherSettings settings,
                                                   uint64_t seed, Logger log) {
  auto owned = std::make_unique<State>(loop, std::move(contract), settings, std::move(log));
  State* state = owned.get();
  const Logger& said = state->log_plain;
  state->boot = net::hex(net::random_bytes(8));

  Supervisor::Settings supervising;
  supervising.not_clean_after = settings.not_clean_after;
  supervising.stdout_fd = settings.stdout_fd;
  PITCREW_ASSIGN(
      state->supervisor,
      Supervisor::create(loop, std::move(supervising),
                         {.on_exit = [state](size_t local, const ExitCause& cause) { state->on_exit(local, cause); }},
                         said));

  MemoryService::Settings memory;
  memory.folder = state->contract.memory_folder;
  memory.socket = state->contract.run_folder + "/launcher.sock";
  memory.address = {state->contract.pod_ip, 0};
  memory.client.put_bytes_per_second = uint64_t{state->contract.peer_copy_mb} * 1'000'000;
  MemoryService::Handler from_ranks;
  from_ranks.on_saved = [state](const launcher_socket::Saved& saved) { state->on_saved(saved); };
  from_ranks.on_evidence = [state](const launcher_socket::Evidence& evidence) { state->on_evidence(evidence); };
  from_ranks.on_counted = [state](const std::string& checkpoint, Step step) { state->on_counted(checkpoint, step); };
  from_ranks.on_silence = [state](const Silence::Report& report) { state->on_silence(report); };
  PITCREW_ASSIGN(state->memory, MemoryService::create(loop, std::move(memory), std::move(from_ranks), said));

  if (state->contract.metrics_port != 0) {
    net::HttpServerSettings http;
    // Simulated nodes share one machine: there each pod has its port on its own address alone.
    const bool simulated = !state->contract.path_map.empty();
    http.address = {simulated ? state->contract.pod_ip : "", state->contract.metrics_port};
    http.max_connections = 8;
    auto server = net::HttpServer::listen(
        loop, http,
        [state](const net::HttpRequest& request, net::HttpResponderPtr responder) {
          responder->respond(request.path() == "/metrics" ? net::text_response(200, state->metrics_page())
                                                          : net::text_response(404, "not found\n"));
        },
        said);
    // Two pods of one node may share its network: training matters more than the page.
    if (server) {
      state->metrics = *std::move(server);
    } else {
      said.warning("no /metrics", {{"error", server.error().message}});
    }
  }
  PITCREW_ASSIGN(state->signals,
                 loop.on_signal({SIGTERM, SIGINT}, [state](int signal) { state->on_terminate(signal); }));

  ChannelLink::Handler handler;
  handler.on_open = [state] { state->say_hello(); };
  handler.on_message = [state](channel::ToLauncher message) { state->on_message(std::move(message)); };
  handler.on_close = [state](const std::string&) { state->told_at.reset(); };
  state->link = std::make_unique<ChannelLink>(
      loop, ChannelLink::Settings{state->contract.channel_file, state->contract.token_file}, std::move(handler), seed,
      said);
  state->look();
  return std::unique_ptr<Launcher>(new Launcher(std::move(owned)));
}

Launcher::Launcher(std::unique_ptr<State> state) : state_(std::move(state)) {}
Launcher::~Launcher() = default;

int Launcher::run() {
  state_->loop.run();
  return state_->exit_code.value_or(api::launcher::kExitFailed);
}

uint16_t Launcher::metrics_port() const { return state_->metrics ? state_->metrics->address().port : 0; }

}  // namespace pitcrew::launcher
