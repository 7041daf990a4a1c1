#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "launcher/supervise/exit_cause.hpp"
#include "launcher/supervise/output.hpp"
#include "launcher/supervise/process.hpp"
#include "lib/base/log.hpp"

namespace pitcrew::launcher {

struct RankStart {
  Rank rank;
  Program program;
  std::string log_path;  // empty: none
};

// How an abort ended.
struct AbortResult {
  bool clean = false;
  std::string message;  // who would not die
};

// The processes of this pod: starts the ranks of an epoch, reaps every process that comes to be ours, ends them all.
//
// Made on the loop's thread, which must be the process's main one, before any rank; at most one in a process, since it
// waits for every child. When it is destroyed it kills what still runs and does not wait.
class Supervisor {
 public:
  struct Handler {
    // A rank's own process has ended. Not called for those that an abort has killed.
    std::function<void(size_t local, const ExitCause& cause)> on_exit;
  };
  struct Settings {
    Duration not_clean_after = seconds(10);
    int stdout_fd = 1;
    OutputWriter::Settings output = {};
    std::function<uint64_t()> oom_kills = read_oom_kills;
  };

  static Result<std::unique_ptr<Supervisor>> create(net::AsioLoop& loop, Settings settings, Handler handler,
                                                    Logger log);
  ~Supervisor();
  Supervisor(const Supervisor&) = delete;
  Supervisor& operator=(const Supervisor&) = delete;

  // Starts all ranks, after the ranks of before have ended (abort() or on_exit). If one can't be forked none stays.
  Status start(std::vector<RankStart> ranks);

  // SIGKILL to all ranks and all their descendants, whatever session they are in, until no child is left. `done` once:
  // clean as soon as all are gone, or not clean after 10 s, naming who is left; those are still killed and reaped then.
  // Called during an abort: both are told.
  void abort(std::function<void(const AbortResult& result)> done);

  // SIGTERM to the ranks' own processes, for a planned stop: they save and exit. Those that are left when the grace is
  // over, and all descendants, are killed. `done` when all are gone; clean: every rank exited with 0 in time. on_exit
  // is called for each rank as ever.
  void stop(Duration grace, std::function<void(bool clean)> done);

  size_t ranks() const;
  bool alive(size_t local) const;
  bool any_alive() const;
  pid_t pid(size_t local) const;
  bool output_blocked(size_t local) const;
  uint64_t output_pauses() const;
  std::string_view tail(size_t local) const;
  uint64_t reaped() const;  // processes, orphans included

  // What every rank does now, without a debugger: the kernel's words on its threads, and its own backtrace where it has
  // a handler for SIGUSR2, read from its output within 2 s.
  void collect_stacks(size_t limit, std::function<void(std::string text)> done);

  // A block of our own words in the output, between the ranks' lines.
  void print(std::string text);
  // Waits for the reader of stdout, at most so long: before the process ends.
  bool drain(Duration at_most);

 private:
  struct State;
  explicit Supervisor(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace pitcrew::launcher
