#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lib/base/result.hpp"
#include "lib/base/strong.hpp"

namespace pitcrew {

// The progress page: a small file that the launcher makes, maps and watches, and into which every rank of the pod
// writes where it is. The layout is public and fixed; docs/training-programs.md describes it for other languages. All
// numbers are little-endian. Offsets in bytes:
//
//   0    header, 128 bytes
//   128  one line of 64 bytes per local rank
//   then 16 gauges of 32 bytes per local rank (24-byte name, double), rank after rank
namespace page {

inline constexpr uint64_t kMagic = 0x3145474150574350ull;  // "PCWPAGE1"
inline constexpr uint32_t kLayoutVersion = 1;
inline constexpr uint64_t kNone = ~uint64_t{0};  // a step that does not exist

// What a rank is doing. Each phase has a limit of its own; only kTraining has a learned one.
enum class Phase : uint16_t {
  kStarting = 0,   // process start to the first collective
  kRestoring = 1,  // reading a checkpoint, voting
  kFirstStep = 2,  // plans are made, kernels are compiled
  kTraining = 3,
  kEvaluating = 4,
  kSaving = 5,    // the step waits for a save (a save in the background is kTraining)
  kLostPeer = 6,  // a peer is gone; waiting to be told what to do
  kDone = 7,      // trained to the end
};
std::string_view to_string(Phase phase);

// Flags of a line.
inline constexpr uint16_t kInCollective = 1;  // waiting in, or doing, the collective `collective`

enum class Source : uint32_t { kNone = 0, kOwnMemory = 1, kPeerMemory = 2, kFileSystem = 3, kObjectStorage = 4 };
std::string_view to_string(Source source);

struct Header {
  uint64_t magic;
  uint32_t layout_version;
  uint32_t local_ranks;
  uint64_t term;
  uint64_t epoch;
  // Launcher to ranks: each grows by one with every request, so a rank compares with what it has served.
  uint64_t save_requested;
  uint64_t stop_requested;  // save, then exit 0
  // Rank 0 to launcher.
  uint64_t total_steps;        // 0: unknown
  uint64_t tokens_per_sample;  // 0: unknown
  uint64_t durable_step;       // newest complete durable checkpoint, or kNone
  uint64_t memory_step;        // newest memory checkpoint that counts, or kNone
  uint64_t resumed_step;       // what this epoch started from, or kNone: from the beginning
  uint32_t resumed_source;     // Source
  uint32_t reserved0;
  uint64_t reserved[4];
};
static_assert(sizeof(Header) == 128);

struct Line {
  uint64_t updates;  // grows by one with each update, written last
  uint64_t step;     // optimizer steps done
  uint64_t samples;  // samples consumed by the whole job
  uint16_t phase;    // Phase
  uint16_t flags;
  uint32_t gpu_queued;   // the low half of how often the device was asked to move `gpu_counter` on; 0 on older pages
  double loss;           // of the last step done; NaN: none yet
  uint64_t collective;   // sequence number of the last collective entered
  uint64_t gpu_counter;  // moved on by the device, in the order of its work; 0: the program has none
  uint64_t time_ns;      // CLOCK_MONOTONIC of the last update
};
static_assert(sizeof(Line) == 64);

inline constexpr size_t kGaugesPerRank = 16;
struct Gauge {
  char name[24];  // NUL-padded; empty: unused
  double value;
};
static_assert(sizeof(Gauge) == 32);

constexpr size_t file_size(uint32_t local_ranks) {
  return sizeof(Header) + local_ranks * (sizeof(Line) + kGaugesPerRank * sizeof(Gauge));
}

// A copy of one rank's line, read so that its fields belong together.
struct LineCopy {
  uint64_t updates = 0;
  Step step;
  uint64_t samples = 0;
  Phase phase = Phase::kStarting;
  bool in_collective = false;
  double loss = 0;
  uint64_t collective = 0;
  uint64_t gpu_counter = 0;
  uint32_t gpu_queued = 0;
  uint64_t time_ns = 0;

  // Whether the device still has work that it was given: with a hang, whether it is stuck itself or the host. Unset:
  // the program doesn't say.
  std::optional<bool> gpu_behind() const {
    if (gpu_queued == 0) return std::nullopt;
    return static_cast<uint32_t>(gpu_counter) != gpu_queued;
  }
};

struct HeaderCopy {
  uint32_t local_ranks = 0;
  EpochId epoch;
  uint64_t save_requested = 0;
  uint64_t stop_requested = 0;
  uint64_t total_steps = 0;
  uint64_t tokens_per_sample = 0;
  std::optional<Step> durable_step;
  std::optional<Step> memory_step;
  std::optional<Step> resumed_step;
  Source resumed_source = Source::kNone;
};

// The launcher's side: makes the file and reads it. Single-threaded; the file stays until its owner removes it.
class Watcher {
 public:
  static Result<Watcher> create(const std::string& path, uint32_t local_ranks, EpochId epoch);
  Watcher(Watcher&&) noexcept;
  Watcher& operator=(Watcher&&) noexcept;
  ~Watcher();

  HeaderCopy header() const;
  LineCopy line(uint32_t local_rank) const;
  std::vector<std::pair<std::string, double>> gauges(uint32_t local_rank) const;
  void request_save();
  void request_stop();

 private:
  struct Mapping;
  explicit Watcher(std::unique_ptr<Mapping> mapping);
  std::unique_ptr<Mapping> mapping_;
};

// A rank's side. Any thread of the rank may call any function.
class Writer {
 public:
  // A writer without a page does nothing: programs run outside Pitcrew too.
  Writer();
  static Result<Writer> open(const std::string& path, uint32_t local_rank);
  Writer(Writer&&) noexcept;
  Writer& operator=(Writer&&) noexcept;
  ~Writer();

  void set_phase(Phase phase);
  void step_done(Step step, uint64_t samples, double loss);
  // Shows that the rank is alive inside a long phase (restoring, evaluating).
  void beat();
  void enter_collective(uint64_t sequence);
  void leave_collective();
  void set_gpu_counter(uint64_t value);
  // How often the device was asked to move the counter on.
  void set_gpu_queued(uint64_t value);
  void set_gauge(std::string_view name, double value);

  // Rank 0 of the job alone.
  void set_totals(uint64_t total_steps, uint64_t tokens_per_sample);
  void set_durable(Step step);
  void set_memory(Step step);
  void set_resumed(std::optional<Step> step, Source source);

  uint64_t save_requested() const;
  uint64_t stop_requested() const;

 private:
  struct Mapping;
  explicit Writer(std::unique_ptr<Mapping> mapping);
  void touch();
  std::unique_ptr<Mapping> mapping_;
};

}  // namespace page
}  // namespace pitcrew
