#include "launcher/supervise/supervisor.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>

#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "launcher/supervise/proc.hpp"

namespace pitcrew::launcher {
namespace {

constexpr Duration kKillAgain = milliseconds(20);
constexpr Duration kKillLater = seconds(1);  // what did not die at once is in the kernel's hands
constexpr size_t kMostNamed = 8;

constexpr Duration kStackPoll = milliseconds(100);
constexpr int kStackPolls = 20;      // 2 s in all
constexpr int kStackQuietPolls = 3;  // a backtrace that has begun and rests has ended
constexpr int kBacktraceSignal = SIGUSR2;

}  // namespace

struct Supervisor::State {
  State(net::AsioLoop& l, Settings s, Handler h, Logger lg)
      : loop(l),
        settings(std::move(s)),
        handler(std::move(h)),
        log(std::move(lg)),
        writer(loop, settings.stdout_fd, settings.output, [this] {
          if (output) output->resume();
        }) {}

  struct Child {
    Process process;
    std::string program;
    Rank rank;
    bool alive = true;
  };
  struct Ending {
    Instant begun;
    bool told = false;
    std::vector<std::function<void(const AbortResult&)>> done;
  };
  struct Stopping {
    bool clean = true;
    Loop::TimerPtr grace;
    std::function<void(bool)> done;
  };
  struct Stacks {
    size_t limit = 0;
    std::vector<std::string> kernel;
    std::vector<std::optional<uint64_t>> asked_at;  // position in the output when the backtrace was asked for
    std::vector<uint64_t> totals;
    int polls = 0;
    int quiet = 0;
    Loop::TimerPtr timer;
    std::function<void(std::string)> done;
  };

  net::AsioLoop& loop;
  Settings settings;
  Handler handler;
  Logger log;
  std::unique_ptr<Output> output;  // before the writer's end: it hands over to it
  OutputWriter writer;
  net::AsioLoop::WatchPtr child_signal;
  std::vector<Child> children;
  uint64_t oom_before = 0;
  uint64_t reaped = 0;
  uint64_t pauses_before = 0;
  std::optional<Ending> ending;
  Loop::TimerPtr ending_timer;
  std::optional<Stopping> stopping;
  std::vector<std::unique_ptr<Stacks>> stacks;

  bool any_alive() const {
    return std::any_of(children.begin(), children.end(), [](const Child& child) { return child.alive; });
  }

  // Whether there is still a child. As a sub-reaper (or PID 1) every orphan below us becomes ours: no child means that
  // nothing is left at all.
  bool reap() {
    while (true) {
      int status = 0;
      const pid_t pid = waitpid(-1, &status, WNOHANG);
      if (pid == 0) return true;
      if (pid < 0 && errno == EINTR) continue;
      if (pid < 0) return false;
      ++reaped;
      for (size_t i = 0; i < children.size(); ++i) {
        if (children[i].alive && children[i].process.pid == pid) ended(i, status);
      }
    }
  }

  void ended(size_t local, int status) {
    Child& child = children[local];
    child.alive = false;
    output->finish(local);
    if (ending) return;
    ExitFacts facts;
    facts.wait_status = status;
    facts.exec_errno = read_exec_error(child.process);
    facts.program = child.program;
    facts.output = output->tail(local);
    const uint64_t oom_now = settings.oom_kills();
    facts.oom_kills = oom_now > oom_before ? oom_now - oom_before : 0;
    const ExitCause cause = name_exit(facts);
    if (stopping && !(WIFEXITED(status) && WEXITSTATUS(status) == 0)) stopping->clean = false;
    // Told from the loop: whoever hears it may start the next epoch.
    loop.post([this, local, cause, pid = child.process.pid] {
      if (local < children.size() && children[local].process.pid == pid && handler.on_exit)
        handler.on_exit(local, cause);
    });
    if (stopping && !any_alive()) finish_stop();
  }

  void kill_all() {
    for (const Child& child : children) {
      if (child.alive) kill(-child.process.pid, SIGKILL);
    }
    for (const pid_t pid : descendants_of(getpid())) kill(pid, SIGKILL);
  }

  void end_all(std::function<void(const AbortResult&)> done) {
    stopping.reset();
    if (!ending) {
      ending.emplace();
      ending->begun = loop.now();
    }
    if (ending->told) {
      ending->begun = loop.now();
      ending->told = false;
    }
    ending->done.push_back(std::move(done));
    step_ending();
  }

  void tell(const AbortResult& result) {
    ending->told = true;
    auto done = std::move(ending->done);
    ending->done.clear();
    if (result.clean) ending.reset();
    for (const auto& function : done) {
      loop.post([function, result] { function(result); });
    }
  }

  void step_ending() {
    ending_timer.reset();
    kill_all();
    if (!reap()) {
      if (ending->told) {
        log.info("the processes that would not die are gone");
        ending.reset();
        return;
      }
      tell({true, ""});
      return;
    }
    const Duration spent = loop.now() - ending->begun;
    if (spent >= settings.not_clean_after && !ending->told) {
      std::string names;
      size_t count = 0;
      for (const pid_t pid : descendants_of(getpid())) {
        if (++count <= kMostNamed) names += (names.empty() ? "" : ", ") + describe_process(pid);
      }
      const std::string message = std::to_string(count) + " process(es) did not die within " +
                                  to_string(settings.not_clean_after) + " of SIGKILL: " + names +
                                  "; a driver or a file system of this node holds them";
      log.error(message);
      tell({false, message});
    }
    ending_timer = loop.after(spent < seconds(1) ? kKillAgain
                              : ending->told     ? kKillLater
                                                 : 5 * kKillAgain,
                              [this] { step_ending(); });
  }

  void on_child_signal() {
    if (!ending) {
      reap();
    } else {
      step_ending();
    }
  }

  // All ranks have ended during a stop: their left-over children go too.
  void finish_stop() {
    const bool clean = stopping->clean;
    auto done = std::move(stopping->done);
    loop.post(
        [this, clean, done] { end_all([clean, done](const AbortResult& result) { done(clean && result.clean); }); });
    stopping.reset();
  }

  void finish_stacks(Stacks* request) {
    std::string text;
    const size_t each = request->limit / std::max<size_t>(1, request->kernel.size());
    for (size_t i = 0; i < request->kernel.size(); ++i) {
      if (i >= children.size()) break;
      std::string part =
          "rank " + std::to_string(children[i].rank.value) + ", pid " + std::to_string(children[i].process.pid) + "\n";
      std::string own;
      if (request->asked_at[i]) own = clean_text(output->since(i, *request->asked_at[i]));
      if (!own.empty()) {
        part += "its own backtrace:\n" + shorten(std::move(own), each / 2) + "\n";
      } else if (request->asked_at[i]) {
        part += "its own backtrace: no answer to SIGUSR2 within 2 s\n";
      }
      part += request->kernel[i];
      text += shorten(std::move(part), each > 1 ? each - 1 : 0) + "\n";
    }
    const auto done = std::move(request->done);
    std::erase_if(stacks, [&](const auto& other) { return other.get() == request; });
    done(std::move(text));
  }

  void poll_stacks(Stacks* request) {
    bool grew = false, all_began = true;
    for (size_t i = 0; i < request->asked_at.size() && i < children.size(); ++i) {
      if (!request->asked_at[i]) continue;
      const uint64_t total = output->total(i);
      grew = grew || total != request->totals[i];
      all_began = all_began && total > *request->asked_at[i];
      request->totals[i] = total;
    }
    request->quiet = grew ? 0 : request->quiet + 1;
    if (++request->polls >= kStackPolls || (all_began && request->quiet >= kStackQuietPolls)) {
      finish_stacks(request);
      return;
    }
    request->timer = loop.after(kStackPoll, [this, request] { poll_stacks(request); });
  }
};

Result<std::unique_ptr<Supervisor>> Supervisor::create(net::AsioLoop& loop, Settings settings, Handler handler,
                                                       Logger log) {
  if (getpid() != 1 && prctl(PR_SET_CHILD_SUBREAPER, 1) != 0) {
    return errno_error("become a sub-reaper, so that orphans of the ranks are found", errno);
  }
  auto state = std::make_unique<State>(loop, std::move(settings), std::move(handler), std::move(log));
  State* raw = state.get();
  PITCREW_ASSIGN(state->child_signal, loop.on_signal({SIGCHLD}, [raw](int) { raw->on_child_signal(); }));
  return std::unique_ptr<Supervisor>(new Supervisor(std::move(state)));
}

Supervisor::Supervisor(std::unique_ptr<State> state) : state_(std::move(state)) {}

Supervisor::~Supervisor() { state_->kill_all(); }

Status Supervisor::start(std::vector<RankStart> ranks) {
  State& state = *state_;
  PITCREW_INVARIANT(!state.any_alive(), "ranks are started while others run");
  if (state.output) state.pauses_before += state.output->pauses();
  state.children.clear();
  state.stacks.clear();
  state.ending.reset();
  state.ending_timer.reset();
  state.stopping.reset();
  state.output = std::make_unique<Output>(state.loop, state.writer);
  state.oom_before = state.settings.oom_kills();
  for (RankStart& rank : ranks) {
    auto process = start_process(rank.program);
    Status added;
    if (process) {
      State::Child child;
      child.process.pid = process->pid;
      child.process.exec_error = std::move(process->exec_error);
      child.program = rank.program.command[0];
      child.rank = rank.rank;
      state.children.push_back(std::move(child));
      added = state.output->add(rank.rank, std::move(process->output), rank.log_path);
    }
    if (process && added) continue;
    Error error =
        (process ? added.error() : process.error()).with_context("start rank " + std::to_string(rank.rank.value));
    state.end_all([](const AbortResult&) {});
    return error;
  }
  return {};
}

void Supervisor::abort(std::function<void(const AbortResult&)> done) { state_->end_all(std::move(done)); }

void Supervisor::stop(Duration grace, std::function<void(bool)> done) {
  State& state = *state_;
  state.stopping.emplace();
  state.stopping->done = std::move(done);
  if (!state.any_alive()) {
    state.finish_stop();
    return;
  }
  for (const State::Child& child : state.children) {
    if (child.alive) kill(child.process.pid, SIGTERM);
  }
  state.stopping->grace = state.loop.after(grace, [&state] {
    auto told = std::move(state.stopping->done);
    state.log.warning("ranks did not end within the grace of a planned stop; killing them");
    state.end_all([told](const AbortResult&) { told(false); });
  });
}

size_t Supervisor::ranks() const { return state_->children.size(); }
bool Supervisor::alive(size_t local) const { return local < state_->children.size() && state_->children[local].alive; }
bool Supervisor::any_alive() const { return state_->any_alive(); }
pid_t Supervisor::pid(size_t local) const { return state_->children.at(local).process.pid; }
bool Supervisor::output_blocked(size_t local) const { return alive(local) && state_->output->blocked(local); }
uint64_t Supervisor::output_pauses() const {
  return state_->pauses_before + (state_->output ? state_->output->pauses() : 0);
}
std::string_view Supervisor::tail(size_t local) const { return state_->output->tail(local); }
uint64_t Supervisor::reaped() const { return state_->reaped; }

void Supervisor::collect_stacks(size_t limit, std::function<void(std::string)> done) {
  State& state = *state_;
  auto request = std::make_unique<State::Stacks>();
  request->limit = limit;
  request->done = std::move(done);
  bool asked = false;
  for (size_t i = 0; i < state.children.size(); ++i) {
    const State::Child& child = state.children[i];
    request->kernel.push_back(child.alive ? kernel_stacks(child.process.pid, limit) : "has ended\n");
    request->totals.push_back(state.output->total(i));
    std::optional<uint64_t> position;
    if (child.alive && catches_signal(child.process.pid, kBacktraceSignal)) {
      position = state.output->total(i);
      kill(child.process.pid, kBacktraceSignal);
      asked = true;
    }
    request->asked_at.push_back(position);
  }
  State::Stacks* raw = request.get();
  state.stacks.push_back(std::move(request));
  // Never inside this call.
  raw->timer = state.loop.after(asked ? kStackPoll : Duration(0), [&state, raw, asked] {
    if (asked) {
      state.poll_stacks(raw);
    } else {
      state.finish_stacks(raw);
    }
  });
}

void Supervisor::print(std::string text) { state_->writer.to_stdout(std::move(text)); }
bool Supervisor::drain(Duration at_most) { return state_->writer.drain(at_most); }

}  // namespace pitcrew::launcher
