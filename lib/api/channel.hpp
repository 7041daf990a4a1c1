#pragma once

#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "lib/base/environment.hpp"
#include "lib/base/strong.hpp"

// What launchers and the operator's leader say to one another over the control channel: one JSON object a WebSocket
// message,
// {"type": "hello", …}. Unknown fields are passed over, so that two minor versions understand one another.
namespace pitcrew::api::channel {

inline constexpr uint32_t kProtocolMajor = 1;
inline constexpr uint32_t kProtocolMinor = 0;
inline constexpr size_t kMaxFromLauncher = 64 * 1024;
inline constexpr size_t kMaxToLauncher = 1024 * 1024;  // a table of 4,096 replicas
inline constexpr char kPath[] = "/channel/v1";
inline constexpr char kAudience[] = "pitcrew";

// channel.json, an annotation of the pod that the downward API shows to the launcher.
struct Config {
  std::vector<std::string> addresses;  // "10.0.0.7:9443": numeric
  std::string server_name;
  std::string ca_bundle;  // PEM, old and new root
};

// ---- launcher to operator ----

// The first message of every connection.
struct Hello {
  uint32_t major = kProtocolMajor;
  uint32_t minor = kProtocolMinor;
  std::string job_uid;
  std::string pod_name;
  std::string pod_uid;
  std::string node;
  std::string boot;     // random, new at every start of the launcher's process
  std::string address;  // numeric, where peers reach this launcher
  uint32_t peer_port = 0;
  uint32_t gpus = 0;
  EpochId seen;                   // the highest term and epoch it has seen
  bool running = false;           // whether ranks of `seen` are running now
  std::vector<ResumePoint> held;  // memory checkpoints that count and of which it holds a part
};

// The phase of ranks that have run for a while without a word on the progress page: a program that doesn't know it.
inline constexpr std::string_view kWithoutPage = "without page";

// At most once a second, for the epoch it belongs to; the newest words of the progress page.
struct Progress {
  EpochId epoch;
  // Of the slowest local rank, unless said otherwise.
  Step step;
  uint64_t samples = 0;
  std::string phase;           // page::to_string(Phase), or kWithoutPage
  std::optional<double> loss;  // rank 0's launcher alone
  double tokens_per_second = 0;
  uint64_t total_steps = 0;
  std::optional<Step> durable_step;
  std::optional<Step> memory_step;
  std::optional<Step> resumed_step;  // what the ranks took, after their vote
  std::string resumed_source;        // empty: not known yet; "none": from the beginning
  bool lost_peer = false;            // a local rank is in phase "lost peer"
  std::optional<Rank> lost_rank;     // whom it lost
};

enum class ExitKind { kExited, kSignaled, kOom, kStartFailed };
std::string_view to_string(ExitKind kind);

// A rank has ended, without having been told to.
struct Exited {
  EpochId epoch;
  Rank rank;
  ExitKind kind = ExitKind::kExited;
  int code = 0;                         // exit code or signal
  std::string reason;                   // for people: "killed by SIGSEGV", "exit code 1: RuntimeError: …"
  std::vector<std::string> last_lines;  // at most 20, 4 KiB
  std::string exception;  // its last exception's line, or empty: what makes a failure the same failure again
  Step step;
  bool done = false;  // the page said phase done: trained to the end
};

// A hang, as judged on this pod.
struct Stalled {
  EpochId epoch;
  Step step;
  std::string phase;
  double seconds = 0;  // without progress
  double limit_seconds = 0;
  struct Suspect {
    Rank rank;
    uint64_t collective = 0;
    bool in_collective = false;
    std::optional<bool> gpu_behind;  // its GPU has not done all that it was given; unset: not known
  };
  std::vector<Suspect> ranks;  // of all local ranks; the operator compares pods
  std::string stacks;          // at most 16 KiB
};

// A peer's launcher can't be reached, or can again.
struct Unreachable {
  EpochId epoch;
  Slot slot;
  double seconds = 0;  // since when; 0: reachable again
};

struct Saved {
  EpochId epoch;
  Step step;
  bool durable = false;  // else: a memory checkpoint counts
  std::string path;
  uint64_t bytes = 0;
  std::string request;  // the id of the request it answers, or empty
};

// A planned stop is over: every local rank has saved and exited 0, or was ended at the end of the grace.
struct Stopped {
  EpochId epoch;
  bool clean = false;
};

// Ranks of `epoch` were aborted and are gone; or one would not die within 10 s (then the node is suspect).
struct Aborted {
  EpochId epoch;
  bool clean = false;
  std::string message;
};

struct Evidence {
  EpochId epoch;
  Rank rank;
  std::string kind;
  std::string message;
  std::optional<Rank> peer;
  std::optional<Step> step;  // with `digest` as in launcher_socket::Evidence
  std::string digest;
};

// Answer to Diagnose.
struct Stacks {
  std::string request;
  std::string text;  // at most 32 KiB
};

using FromLauncher =
    std::variant<Hello, Progress, Exited, Stalled, Unreachable, Saved, Stopped, Aborted, Evidence, Stacks>;

// ---- operator to launcher ----

struct TableEntry {
  Slot slot;
  std::string pod_name;
  std::string node;
  std::string address;  // of its launcher
  uint32_t peer_port = 0;
  Rank first_rank;
  uint32_t ranks = 1;
};

// The rows of an epoch. They are the same for all of its launchers, so copies share them until one is changed.
class Table {
 public:
  using Rows = std::vector<TableEntry>;
  Table() = default;
  Table(Rows rows) : rows_(std::make_shared<Rows>(std::move(rows))) {}
  Table(std::initializer_list<TableEntry> rows) : Table(Rows(rows)) {}

  const Rows& rows() const;
  operator const Rows&() const { return rows(); }
  Rows::const_iterator begin() const { return rows().begin(); }
  Rows::const_iterator end() const { return rows().end(); }
  size_t size() const { return rows().size(); }
  bool empty() const { return rows().empty(); }
  const TableEntry& front() const { return rows().front(); }
  const TableEntry& operator[](size_t index) const { return rows()[index]; }

  TableEntry& operator[](size_t index) { return own()[index]; }
  void push_back(TableEntry row) { own().push_back(std::move(row)); }

 private:
  Rows& own();
  std::shared_ptr<Rows> rows_;  // null: none
};

// The table of an epoch: abort what runs of an older one, then start these ranks. A spare gets it too (`slot` unset),
// so that it knows its peers and warms up.
struct Epoch {
  EpochId id;
  JobIdentity job;
  std::optional<Slot> slot;  // the receiver's
  uint32_t world_size = 0;
  Table table;
  std::string master_address;
  uint32_t master_port = 0;
  std::string key;  // base64 of 32 bytes: what launchers of this epoch prove to one another
  std::optional<ResumePoint> resume;
  std::string resume_hint;  // for logs
  std::optional<ReplayPoint> replay;
  CheckpointSettings checkpoint;
  std::optional<Duration> stall_after;  // unset: learned
  Duration start_within{0};
  double slow_below = 0;
};

// Stop this epoch's ranks: abort (SIGKILL, at once) or save within a grace.
struct Stop {
  EpochId epoch;
  bool save = false;
  Duration grace{0};
  std::string reason;
};

// Save now (a durable checkpoint), and go on.
struct Save {
  EpochId epoch;
  std::string request;
};

// Collect stacks of all ranks.
struct Diagnose {
  EpochId epoch;
  std::string request;
};

// The job is over: exit 0 (or 1), the pod ends.
struct Finish {
  EpochId epoch;
  bool success = true;
};

using ToLauncher = std::variant<Epoch, Stop, Save, Diagnose, Finish>;

std::string encode(const FromLauncher& message);
std::string encode(const ToLauncher& message);
Result<FromLauncher> decode_from_launcher(std::string_view text);
Result<ToLauncher> decode_to_launcher(std::string_view text);

std::string encode(const Config& config);
Result<Config> decode_config(std::string_view text);

}  // namespace pitcrew::api::channel
