#include "lib/base/progress_page.hpp"

#include <atomic>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <mutex>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

namespace pitcrew::page {
namespace {

// Fields are read and written by several processes at once, each through an atomic of its own size.
template <typename T>
T get(const T& field) {
  return std::atomic_ref<T>(const_cast<T&>(field)).load(std::memory_order_acquire);
}
template <typename T>
void put(T& field, T value) {
  std::atomic_ref<T>(field).store(value, std::memory_order_release);
}

std::optional<Step> optional_step(uint64_t word) {
  if (word == kNone) return std::nullopt;
  return Step(word);
}

uint64_t monotonic_ns() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000ull + static_cast<uint64_t>(now.tv_nsec);
}

struct Map {
  void* data = nullptr;
  size_t size = 0;
  ~Map() {
    if (data != nullptr) munmap(data, size);
  }
  Header* header() const { return static_cast<Header*>(data); }
  Line* line(uint32_t rank) const { return reinterpret_cast<Line*>(static_cast<char*>(data) + sizeof(Header)) + rank; }
  Gauge* gauges(uint32_t rank) const {
    char* first = static_cast<char*>(data) + sizeof(Header) + header()->local_ranks * sizeof(Line);
    return reinterpret_cast<Gauge*>(first) + rank * kGaugesPerRank;
  }
};

Status map_file(const std::string& path, int flags, std::optional<size_t> create_size, Map& map) {
  const int fd = ::open(path.c_str(), flags | O_CLOEXEC, 0660);
  if (fd < 0) return errno_error("open progress page " + path, errno);
  if (create_size && ftruncate(fd, static_cast<off_t>(*create_size)) != 0) {
    const int number = errno;
    close(fd);
    return errno_error("size progress page " + path, number);
  }
  struct stat st {};
  if (fstat(fd, &st) != 0 || static_cast<size_t>(st.st_size) < sizeof(Header)) {
    close(fd);
    return Error(Code::kInvalidArgument, "progress page " + path + " is too short to be one");
  }
  void* data = mmap(nullptr, static_cast<size_t>(st.st_size), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  const int number = errno;
  close(fd);
  if (data == MAP_FAILED) return errno_error("map progress page " + path, number);
  map.data = data;
  map.size = static_cast<size_t>(st.st_size);
  return {};
}

}  // namespace

std::string_view to_string(Phase phase) {
  switch (phase) {
    case Phase::kStarting:
      return "starting";
    case Phase::kRestoring:
      return "restoring";
    case Phase::kFirstStep:
      return "first step";
    case Phase::kTraining:
      return "training";
    case Phase::kEvaluating:
      return "evaluating";
    case Phase::kSaving:
      return "saving";
    case Phase::kLostPeer:
      return "lost peer";
    case Phase::kDone:
      return "done";
  }
  return "unknown";
}

std::string_view to_string(Source source) {
  switch (source) {
    case Source::kNone:
      return "none";
    case Source::kOwnMemory:
      return "own memory";
    case Source::kPeerMemory:
      return "peer memory";
    case Source::kFileSystem:
      return "file system";
    case Source::kObjectStorage:
      return "object storage";
  }
  return "unknown";
}

struct Watcher::Mapping : Map {};

Watcher::Watcher(std::unique_ptr<Mapping> mapping) : mapping_(std::move(mapping)) {}
Watcher::Watcher(Watcher&&) noexcept = default;
Watcher& Watcher::operator=(Watcher&&) noexcept = default;
Watcher::~Watcher() = default;

Result<Watcher> Watcher::create(const std::string& path, uint32_t local_ranks, EpochId epoch) {
  // A page of an older epoch may still be mapped by a process that is being killed: never write into that one.
  if (unlink(path.c_str()) != 0 && errno != ENOENT) return errno_error("remove old progress page " + path, errno);
  auto mapping = std::make_unique<Mapping>();
  PITCREW_TRY(map_file(path, O_RDWR | O_CREAT | O_EXCL, file_size(local_ranks), *mapping));
  Header& header = *mapping->header();
  header.layout_version = kLayoutVersion;
  header.local_ranks = local_ranks;
  header.term = epoch.term.value;
  header.epoch = epoch.number.value;
  header.durable_step = header.memory_step = header.resumed_step = kNone;
  for (uint32_t rank = 0; rank < local_ranks; ++rank) mapping->line(rank)->loss = std::nan("");
  put(header.magic, kMagic);
  return Watcher(std::move(mapping));
}

HeaderCopy Watcher::header() const {
  const Header& header = *mapping_->header();
  HeaderCopy copy;
  copy.local_ranks = header.local_ranks;
  copy.epoch = {Term(header.term), EpochNumber(header.epoch)};
  copy.save_requested = get(header.save_requested);
  copy.stop_requested = get(header.stop_requested);
  copy.total_steps = get(header.total_steps);
  copy.tokens_per_sample = get(header.tokens_per_sample);
  copy.durable_step = optional_step(get(header.durable_step));
  copy.memory_step = optional_step(get(header.memory_step));
  copy.resumed_step = optional_step(get(header.resumed_step));
  copy.resumed_source = static_cast<Source>(get(header.resumed_source));
  return copy;
}

LineCopy Watcher::line(uint32_t local_rank) const {
  const Line& line = *mapping_->line(local_rank);
  LineCopy copy;
  // A writer that never rests must not hold the reader: after a few tries a torn line is good enough.
  for (int attempt = 0; attempt < 8; ++attempt) {
    copy.updates = get(line.updates);
    copy.step = Step(get(line.step));
    copy.samples = get(line.samples);
    copy.phase = static_cast<Phase>(get(line.phase));
    copy.in_collective = (get(line.flags) & kInCollective) != 0;
    copy.loss = get(line.loss);
    copy.collective = get(line.collective);
    copy.gpu_counter = get(line.gpu_counter);
    copy.gpu_queued = get(line.gpu_queued);
    copy.time_ns = get(line.time_ns);
    if (get(line.updates) == copy.updates) break;
  }
  return copy;
}

std::vector<std::pair<std::string, double>> Watcher::gauges(uint32_t local_rank) const {
  std::vector<std::pair<std::string, double>> all;
  const Gauge* gauges = mapping_->gauges(local_rank);
  for (size_t i = 0; i < kGaugesPerRank; ++i) {
    const size_t length = strnlen(gauges[i].name, sizeof gauges[i].name);
    if (length == 0) continue;
    all.emplace_back(std::string(gauges[i].name, length), get(gauges[i].value));
  }
  return all;
}

void Watcher::request_save() { std::atomic_ref(mapping_->header()->save_requested).fetch_add(1); }
void Watcher::request_stop() { std::atomic_ref(mapping_->header()->stop_requested).fetch_add(1); }

struct Writer::Mapping : Map {
  uint32_t rank = 0;
  std::mutex mutex;  // keeps `updates` whole where several threads of the rank write
  Line& own() const { return *line(rank); }
};

Writer::Writer() = default;
Writer::Writer(std::unique_ptr<Mapping> mapping) : mapping_(std::move(mapping)) {}
Writer::Writer(Writer&&) noexcept = default;
Writer& Writer::operator=(Writer&&) noexcept = default;
Writer::~Writer() = default;

Result<Writer> Writer::open(const std::string& path, uint32_t local_rank) {
  auto mapping = std::make_unique<Mapping>();
  PITCREW_TRY(map_file(path, O_RDWR, std::nullopt, *mapping));
  const Header& header = *mapping->header();
  if (get(header.magic) != kMagic || header.layout_version != kLayoutVersion) {
    return Error(Code::kInvalidArgument,
                 "progress page " + path + " has another layout; use the launcher of this version");
  }
  if (local_rank >= header.local_ranks || mapping->size < file_size(header.local_ranks)) {
    return Error(Code::kInvalidArgument,
                 "progress page " + path + " has no line for local rank " + std::to_string(local_rank));
  }
  mapping->rank = local_rank;
  return Writer(std::move(mapping));
}

void Writer::touch() {
  Line& line = mapping_->own();
  put(line.time_ns, monotonic_ns());
  put(line.updates, line.updates + 1);
}

void Writer::set_phase(Phase phase) {
  if (!mapping_) return;
  std::lock_guard lock(mapping_->mutex);
  put(mapping_->own().phase, static_cast<uint16_t>(phase));
  touch();
}

void Writer::step_done(Step step, uint64_t samples, double loss) {
  if (!mapping_) return;
  std::lock_guard lock(mapping_->mutex);
  Line& line = mapping_->own();
  put(line.step, step.value);
  put(line.samples, samples);
  put(line.loss, loss);
  touch();
}

void Writer::beat() {
  if (!mapping_) return;
  std::lock_guard lock(mapping_->mutex);
  touch();
}

void Writer::enter_collective(uint64_t sequence) {
  if (!mapping_) return;
  std::lock_guard lock(mapping_->mutex);
  put(mapping_->own().collective, sequence);
  put(mapping_->own().flags, kInCollective);
  touch();
}

void Writer::leave_collective() {
  if (!mapping_) return;
  std::lock_guard lock(mapping_->mutex);
  put(mapping_->own().flags, uint16_t{0});
  touch();
}

void Writer::set_gpu_counter(uint64_t value) {
  if (mapping_) put(mapping_->own().gpu_counter, value);
}

void Writer::set_gpu_queued(uint64_t value) {
  if (mapping_) put(mapping_->own().gpu_queued, static_cast<uint32_t>(value));
}

void Writer::set_gauge(std::string_view name, double value) {
  if (!mapping_) return;
  Gauge* gauges = mapping_->gauges(mapping_->rank);
  for (size_t i = 0; i < kGaugesPerRank; ++i) {
    const std::string_view taken(gauges[i].name, strnlen(gauges[i].name, sizeof gauges[i].name));
    if (!taken.empty() && taken != name.substr(0, sizeof gauges[i].name)) continue;
    put(gauges[i].value, value);
    if (taken.empty()) std::memcpy(gauges[i].name, name.data(), std::min(name.size(), sizeof gauges[i].name));
    return;
  }
}

void Writer::set_totals(uint64_t total_steps, uint64_t tokens_per_sample) {
  if (!mapping_) return;
  put(mapping_->header()->total_steps, total_steps);
  put(mapping_->header()->tokens_per_sample, tokens_per_sample);
}

void Writer::set_durable(Step step) {
  if (mapping_) put(mapping_->header()->durable_step, step.value);
}

void Writer::set_memory(Step step) {
  if (mapping_) put(mapping_->header()->memory_step, step.value);
}

void Writer::set_resumed(std::optional<Step> step, Source source) {
  if (!mapping_) return;
  put(mapping_->header()->resumed_source, static_cast<uint32_t>(source));
  put(mapping_->header()->resumed_step, step ? step->value : kNone);
}

uint64_t Writer::save_requested() const { return mapping_ ? get(mapping_->header()->save_requested) : 0; }
uint64_t Writer::stop_requested() const { return mapping_ ? get(mapping_->header()->stop_requested) : 0; }

}  // namespace pitcrew::page
