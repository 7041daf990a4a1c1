#include "trainer/checkpoint/restorer.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <set>
#include <utility>

#include "trainer/checkpoint/catalogue.hpp"
#include "trainer/checkpoint/restore_plan.hpp"

namespace pitcrew::trainer {
namespace {

// What all ranks together hold of bytes under way at one time, on each rank.
constexpr uint64_t kStaging = uint64_t{128} << 20;

// A file in another pod's memory: the launcher fetches what is read into fetch/.
class FetchedFile final : public File {
 public:
  FetchedFile(LauncherClient& launcher, const MemoryFolder& memory, Slot slot, std::string path, uint32_t rank)
      : launcher_(launcher),
        memory_(memory),
        slot_(slot),
        path_(std::move(path)),
        into_("rank-" + std::to_string(rank)) {}

  Status write(std::span<const std::byte>, uint64_t) override {
    return Error(Code::kUnsupported, "a peer's memory can't be written");
  }
  Status read(std::span<std::byte> data, uint64_t offset) const override {
    if (data.empty()) return {};
    launcher_socket::Fetch fetch{slot_, path_, {{offset, data.size()}}, into_};
    const auto answer = launcher_.call(fetch);
    if (!answer) return answer.error().with_context("fetch " + path_ + " from replica " + std::to_string(slot_.value));
    const std::string local = join_path(memory_.path(), "fetch/" + into_);
    Status read;
    {
      PITCREW_ASSIGN(const auto file, posix_file_system().open(local, FileSystem::Open::kRead));
      read = file->read(data, 0);
    }
    PITCREW_TRY(posix_file_system().remove(local));
    return read;
  }
  Result<uint64_t> size() const override {
    return Error(Code::kUnsupported, "the size of a peer's file is in the manifest");
  }
  Status sync() override { return {}; }

 private:
  LauncherClient& launcher_;
  const MemoryFolder& memory_;
  const Slot slot_;
  const std::string path_;
  const std::string into_;
};

// Two turns' blocks of all ranks: while one is read and checked, the other is copied to the device. Ends with its
// copies.
class Ring {
 public:
  static Result<Ring> create(Copier& copier, const std::vector<std::vector<ReadUnit>>& plan, uint64_t block) {
    Ring ring(copier);
    std::vector<uint64_t> sizes;
    for (const auto& units : plan) {
      uint64_t all = 0;
      for (const ReadUnit& unit : units) all += unit.bytes;
      sizes.push_back(std::min(all, block));
    }
    for (Turn& turn : ring.turns_) {
      for (const uint64_t size : sizes) {
        PITCREW_ASSIGN(Buffer memory, copier.allocate_host(size));
        turn.memory.push_back(std::move(memory));
      }
    }
    return ring;
  }
  Ring(Ring&&) = default;
  ~Ring() {
    for (const Turn& turn : turns_) copier_->wait(turn.copied);
  }

  // Each rank's block, whole; what it held before has been copied.
  std::vector<std::span<std::byte>>& next() {
    at_ = 1 - at_;
    Turn& turn = turns_[at_];
    copier_->wait(std::exchange(turn.copied, 0));
    turn.blocks.clear();
    for (const Buffer& memory : turn.memory) turn.blocks.emplace_back(memory.data(), memory.bytes());
    return turn.blocks;
  }
  void copied(Copier::Ticket ticket) { turns_[at_].copied = ticket; }

 private:
  struct Turn {
    std::vector<Buffer> memory;
    std::vector<std::span<std::byte>> blocks;
    Copier::Ticket copied = 0;
  };
  explicit Ring(Copier& copier) : copier_(&copier) {}
  Copier* copier_;
  std::array<Turn, 2> turns_;
  size_t at_ = 0;
};

class Restorer {
 public:
  explicit Restorer(RestoreInput& input) : in_(input) {}

  Result<RestoreOutput> run(const std::optional<ResumePoint>& proposal) {
    PITCREW_ASSIGN(const auto candidates, vote_candidates());
    warn_about(proposal, candidates);
    RestoreOutput output;
    std::vector<std::string> damaged;
    std::set<CheckpointName> unusable;
    for (const Candidate& candidate : candidates) {
      PITCREW_ASSIGN(auto tried, attempt(candidate));
      if (tried.fatal) return *tried.fatal;
      const bool usable = tried.why.empty();
      if (usable) {
        if (candidate.place == Place::kMemory) unusable.erase(candidate.name);  // the peers' copy was right
        Restored& restored = output.restored.emplace(std::move(tried.restored));
        restored.damaged = std::move(damaged);
        break;
      }
      damaged.push_back(candidate.describe() + ": " + tried.why);
      if (candidate.place == Place::kMemory) unusable.insert(candidate.name);
      report(candidate, tried.why, tried.damage);
    }
    for (const Candidate& candidate : candidates) {
      if (candidate.place != Place::kMemory || unusable.contains(candidate.name) || output.in_memory) continue;
      output.in_memory = candidate.name;
    }
    for (const std::string& name : in_memory_) {
      if (!output.in_memory || name != to_string(*output.in_memory)) output.others_in_memory.push_back(name);
    }
    output.bytes_read = bytes_read_;
    if (!output.restored && !damaged.empty()) {
      std::string all;
      for (const auto& problem : damaged) all += (all.empty() ? "" : "; ") + problem;
      return Error(Code::kDataLoss,
                   "no checkpoint can be used: " + all + ". Repair or move them away to start from the beginning");
    }
    return output;
  }

 private:
  struct Attempt {
    Restored restored;
    std::string why;             // empty: it worked
    bool damage = false;         // bytes are wrong, not only out of reach
    std::optional<Error> fatal;  // no other checkpoint will do either
  };

  Result<std::vector<Candidate>> vote_candidates() {
    Holdings mine{.slot = in_.slot};
    Status listed;
    if (in_.memory != nullptr && in_.local_rank == 0) mine.memory = in_.memory->holdings();
    if (in_.group.rank() == 0 && in_.storage != nullptr) {
      if (auto found = find_checkpoints(*in_.storage)) {
        for (const auto& checkpoint : *found) {
          if (checkpoint.committed) mine.durable.push_back(checkpoint.folder);
        }
      } else {
        listed = found.error();
      }
    }
    PITCREW_ASSIGN(const auto refused, in_.group.agree(listed));
    if (refused) return *refused;
    PITCREW_ASSIGN(const auto slots, in_.group.gather(static_cast<uint64_t>(in_.slot.value)));
    if (in_.group.rank() == 0) mine.remote = ask_launchers(std::set<uint64_t>(slots.begin(), slots.end()));
    PITCREW_ASSIGN(const auto gathered, in_.group.gather(to_json(mine)));
    std::vector<Holdings> all;
    for (const Json& json : gathered) {
      PITCREW_ASSIGN(Holdings holdings, parse_holdings(json));
      for (const auto& [name, paths] : holdings.memory) in_memory_.insert(name);
      all.push_back(std::move(holdings));
    }
    return find_candidates(all);
  }

  // What launchers hold whose replicas have no rank in this epoch.
  std::vector<Holdings::Remote> ask_launchers(const std::set<uint64_t>& slots) {
    std::vector<Holdings::Remote> remote;
    if (in_.launcher == nullptr || in_.memory == nullptr) return remote;
    const auto answer = in_.launcher->call(launcher_socket::List{});
    if (!answer) {
      in_.log.warning("the launcher can't say what peers hold in memory", {{"error", answer.error().message}});
      return remote;
    }
    for (const auto& held : answer->held) {
      if (held.self || slots.contains(held.slot.value)) continue;
      Holdings::Remote other{held.slot, {}};
      for (const auto& file : held.own) other.paths.push_back("own/" + file);
      for (const auto& copy : held.peer) {
        for (const auto& file : copy.files) other.paths.push_back("peer/" + std::to_string(copy.of.value) + "/" + file);
      }
      remote.push_back(std::move(other));
    }
    return remote;
  }

  void warn_about(const std::optional<ResumePoint>& proposal, const std::vector<Candidate>& candidates) {
    if (!proposal || in_.group.rank() != 0) return;
    const CheckpointName name{proposal->claim, proposal->step};
    const bool found =
        std::any_of(candidates.begin(), candidates.end(), [&](const Candidate& c) { return c.name == name; });
    if (!found) in_.log.warning("the proposed checkpoint is nowhere to be found", {{"checkpoint", to_string(name)}});
  }

  void report(const Candidate& candidate, const std::string& why, bool damage) {
    if (in_.group.rank() != 0) return;
    in_.log.error("a checkpoint can't be used", {{"checkpoint", candidate.describe()}, {"why", why}});
    if (!damage) return;
    if (in_.launcher != nullptr) {
      (void)in_.launcher
          ->call(launcher_socket::Evidence{Rank(0), "digest", candidate.describe() + ": " + why, std::nullopt})
          .ok();
    }
    if (candidate.place != Place::kDurable) return;
    const Status marked = mark_damaged(*in_.storage, folder_of(candidate.manifest_path), why);
    if (!marked) in_.log.warning("the damage can't be noted", {{"error", marked.error().message}});
  }

  Result<Attempt> attempt(const Candidate& candidate) {
    Attempt attempt;
    PITCREW_ASSIGN(const auto manifest, share_manifest(candidate));
    if (!manifest) {
      attempt.why = manifest.error().message;
      attempt.damage = manifest.error().code == Code::kDataLoss;
      return attempt;
    }
    if (const std::string file = missing_file(candidate, *manifest); !file.empty()) {
      attempt.why = file + " is in nobody's memory";
      return attempt;
    }
    if (const Status fits = check_model(*manifest); !fits) {
      attempt.fatal = fits.error().with_context("checkpoint " + to_string(candidate.name));
      return attempt;
    }
    PITCREW_ASSIGN(wanted_, share_held());
    PITCREW_ASSIGN(const auto failed, read_all(candidate, *manifest));
    if (failed) {
      attempt.why = failed->message;
      attempt.damage = failed->code == Code::kDataLoss;
      return attempt;
    }
    Restored& restored = attempt.restored;
    restored.step = manifest->name.step;
    restored.claim = manifest->name.claim;
    restored.state = manifest->state;
    restored.source = candidate.place == Place::kDurable ? durable_source()
                      : only_own(candidate, *manifest)   ? page::Source::kOwnMemory
                                                         : page::Source::kPeerMemory;
    restored.why_not = compare_bits(*manifest);
    restored.bit_for_bit = restored.why_not.empty();
    return attempt;
  }

  page::Source durable_source() const {
    return is_object_storage(in_.storage->path()) ? page::Source::kObjectStorage : page::Source::kFileSystem;
  }

  // The manifest for everybody; the inner error is the candidate's.
  Result<Result<Manifest>> share_manifest(const Candidate& candidate) {
    Result<std::string> text = std::string();
    if (in_.group.rank() == candidate.manifest_rank) {
      text = candidate.place == Place::kDurable
                 ? in_.storage->read(candidate.manifest_path, kMaxManifest)
                 : read_file(posix_file_system(), join_path(in_.memory->path(), candidate.manifest_path), kMaxManifest);
      if (text) bytes_read_ += text->size();
    }
    PITCREW_ASSIGN(const auto failed, in_.group.agree(text ? Status() : Status(text.error())));
    if (failed) return Result<Manifest>(*failed);
    PITCREW_ASSIGN(const std::string shared, in_.group.broadcast(*text, candidate.manifest_rank));
    auto manifest = decode_manifest(shared);
    if (manifest && manifest->name != candidate.name) {
      return Result<Manifest>(Error(Code::kDataLoss, "manifest: it is of " + to_string(manifest->name)));
    }
    return manifest;
  }

  // Index of each of the manifest's tensors among ours.
  Status check_model(const Manifest& manifest) {
    ours_.clear();
    const std::string remedy = "; give this run another checkpoint path, or the configuration that it was made with";
    std::map<std::string, size_t> index;
    std::set<std::string> missing;
    for (size_t i = 0; i < in_.tensors->size(); ++i) index[(*in_.tensors)[i].name] = i;
    for (const auto& [name, i] : index) missing.insert(name);
    for (const auto& tensor : manifest.tensors) {
      const auto found = index.find(tensor.name);
      if (found == index.end())
        return Error(Code::kInvalidArgument, "it is of another model: it has a tensor " + tensor.name + remedy);
      const StateTensor& mine = (*in_.tensors)[found->second];
      if (mine.shape != tensor.shape || mine.dtype != tensor.dtype) {
        return Error(Code::kInvalidArgument,
                     "it is of another model: tensor " + tensor.name + " has another shape or type" + remedy);
      }
      ours_.push_back(found->second);
      missing.erase(tensor.name);
    }
    if (!missing.empty()) {
      return Error(Code::kInvalidArgument, "it is of another model: it lacks tensor " + *missing.begin() + remedy);
    }
    if (manifest.dataset != in_.run->dataset) {
      return Error(Code::kInvalidArgument, "it was trained on another dataset (" + manifest.dataset + ", not " +
                                               in_.run->dataset + ")" + remedy);
    }
    return {};
  }

  std::string compare_bits(const Manifest& manifest) const {
    std::string why;
    const auto differs = [&](const std::string& what) { why += (why.empty() ? "" : "; ") + what; };
    if (manifest.config_hash != in_.run->config_hash) differs("the configuration is another one");
    const Json& bits = in_.run->bits_depend_on;
    std::set<std::string> keys;
    for (const Json* side : {&bits, &manifest.bits_depend_on}) {
      if (!side->is_object()) continue;
      for (const auto& [key, value] : side->items()) keys.insert(key);
    }
    for (const std::string& key : keys) {
      const auto value = [&](const Json& json) {
        return json.is_object() && json.contains(key) ? json[key].dump() : "absent";
      };
      if (value(bits) != value(manifest.bits_depend_on))
        differs(key + " was " + value(manifest.bits_depend_on) + " and is " + value(bits));
    }
    return why;
  }

  Result<std::unique_ptr<File>> open(const ReadUnit& unit, Place place) {
    if (place == Place::kDurable) return in_.storage->open(unit.path);
    if (!unit.remote)
      return posix_file_system().open(join_path(in_.memory->path(), unit.path), FileSystem::Open::kRead);
    if (in_.launcher == nullptr || in_.memory == nullptr)
      return Error(Code::kUnavailable, "there is no launcher to ask for " + unit.path);
    return std::unique_ptr<File>(new FetchedFile(*in_.launcher, *in_.memory, unit.slot, unit.path, in_.group.rank()));
  }

  Status read_unit(const File& file, const Manifest& manifest, const ReadUnit& unit, std::span<std::byte> into) {
    if (unit.header) {
      bytes_read_ += manifest.files[unit.file].header_bytes;
      return check_header(file, manifest.files[unit.file]);
    }
    bytes_read_ += into.size();
    const auto& tensor = manifest.tensors[unit.tensor];
    return read_checked(file, manifest, tensor, tensor.parts[unit.part], unit.first_chunk, into);
  }

  // In rounds: each rank reads and checks a block, all agree that it is right, and hand their blocks to one another.
  // The inner error is the candidate's.
  Result<std::optional<Error>> read_all(const Candidate& candidate, const Manifest& manifest) {
    const uint32_t ranks = in_.group.size(), me = in_.group.rank();
    const uint64_t block = std::max<uint64_t>(1, kStaging / kChunkBytes / ranks) * kChunkBytes;
    const auto plan = plan_reads(candidate, manifest, ranks, block);
    std::vector<size_t> next(ranks, 0);
    std::unique_ptr<File> file;
    std::string file_path;
    PITCREW_ASSIGN(Ring ring, Ring::create(*in_.copier, plan, block));
    while (true) {
      auto& blocks = ring.next();
      std::vector<std::pair<size_t, size_t>> turn(ranks);  // units of each rank in this round
      bool more = false;
      for (uint32_t rank = 0; rank < ranks; ++rank) {
        uint64_t bytes = 0;
        size_t end = next[rank];
        while (end < plan[rank].size() && (end == next[rank] || bytes + plan[rank][end].bytes <= block))
          bytes += plan[rank][end++].bytes;
        turn[rank] = {next[rank], end};
        more = more || end > next[rank];
        next[rank] = end;
        blocks[rank] = blocks[rank].first(bytes);
      }
      if (!more) return std::optional<Error>();

      Status mine;
      uint64_t at = 0;
      for (size_t u = turn[me].first; u < turn[me].second && mine; ++u) {
        const ReadUnit& unit = plan[me][u];
        if (!file || file_path != unit.path) {
          auto opened = open(unit, candidate.place);
          if (!opened) {
            mine = opened.error();
            break;
          }
          file = std::move(*opened);
          file_path = unit.path;
        }
        mine = read_unit(*file, manifest, unit, blocks[me].subspan(at, unit.bytes));
        at += unit.bytes;
      }
      PITCREW_ASSIGN(const auto failed, in_.group.agree(mine));
      if (failed) return failed;
      PITCREW_TRY(wanted_.empty() ? in_.group.share(blocks) : share_wanted(manifest, plan, turn, blocks));
      for (uint32_t rank = 0; rank < ranks; ++rank) scatter(manifest, plan[rank], turn[rank], blocks[rank]);
      ring.copied(in_.copier->copied_in());
    }
  }

  // What a rank holds of a tensor: elements [first, end) of a cut.
  struct Held {
    uint64_t first = 0;
    uint64_t end = 0;
    TensorCut cut = {};
  };

  // Of each rank and tensor; nothing where everybody holds everything.
  Result<std::vector<std::vector<Held>>> share_held() {
    Json mine = Json::array();
    bool divided = false;
    for (const StateTensor& tensor : *in_.tensors) {
      const TensorCut& cut = tensor.cut;
      divided = divided || tensor.held() != tensor.elements() || !cut.whole();
      mine.push_back({tensor.first, tensor.first + tensor.held(), cut.axis, cut.groups, cut.count, cut.index});
    }
    std::vector<std::vector<Held>> held;
    PITCREW_ASSIGN(const auto any, in_.group.gather(static_cast<uint64_t>(divided)));
    if (std::find(any.begin(), any.end(), 1u) == any.end()) return held;
    PITCREW_ASSIGN(const auto all, in_.group.gather(mine));
    for (const Json& json : all) {
      std::vector<Held>& of_rank = held.emplace_back();
      for (const Json& each : json) {
        of_rank.push_back({each.at(0).get<uint64_t>(),
                           each.at(1).get<uint64_t>(),
                           {each.at(2).get<uint32_t>(), each.at(3).get<std::vector<uint64_t>>(),
                            each.at(4).get<uint32_t>(), each.at(5).get<uint32_t>()}});
      }
    }
    return held;
  }

  // What of a unit somebody holds: visit(element of the unit, element of the cut, count).
  template <typename Visit>
  void each_common(const Manifest& manifest, const ReadUnit& unit, const Held& held, Visit&& visit) const {
    const auto& tensor = manifest.tensors[unit.tensor];
    const uint64_t width = size_of(tensor.dtype);
    const uint64_t first = tensor.parts[unit.part].first + unit.first_chunk * kChunkBytes / width;
    for_each_common_run(tensor.shape, tensor.cut, first, unit.bytes / width, held.cut,
                        [&](uint64_t from, uint64_t to, uint64_t count) {
                          const uint64_t begin = std::max(to, held.first), end = std::min(to + count, held.end);
                          if (begin < end) visit(from - first + (begin - to), begin, end - begin);
                        });
  }

  // The stretch of a unit's bytes from the first to the last that somebody holds.
  std::span<std::byte> wanted_of(const Manifest& manifest, const ReadUnit& unit, const Held& held,
                                 std::span<std::byte> bytes) const {
    const uint64_t width = size_of(manifest.tensors[unit.tensor].dtype);
    uint64_t begin = ~uint64_t{0}, end = 0;
    each_common(manifest, unit, held, [&](uint64_t from, uint64_t, uint64_t count) {
      begin = std::min(begin, from);
      end = std::max(end, from + count);
    });
    return begin < end ? bytes.subspan(begin * width, (end - begin) * width) : std::span<std::byte>();
  }

  // Of each rank's block what each other rank needs, and little else.
  Status share_wanted(const Manifest& manifest, const std::vector<std::vector<ReadUnit>>& plan,
                      const std::vector<std::pair<size_t, size_t>>& turn,
                      const std::vector<std::span<std::byte>>& blocks) {
    const uint32_t me = in_.group.rank();
    std::vector<Comm::Send> sends;
    std::vector<Comm::Receive> receives;
    for (uint32_t reader = 0; reader < plan.size(); ++reader) {
      uint64_t at = 0;
      for (size_t u = turn[reader].first; u < turn[reader].second; ++u) {
        const ReadUnit& unit = plan[reader][u];
        const auto bytes = blocks[reader].subspan(at, unit.bytes);
        at += unit.bytes;
        for (uint32_t peer = 0; peer < plan.size() && unit.bytes > 0; ++peer) {
          if (peer == reader || (me != reader && me != peer)) continue;
          const auto part = wanted_of(manifest, unit, wanted_[peer][ours_[unit.tensor]], bytes);
          if (part.empty()) continue;
          if (me == reader) {
            sends.push_back({peer, part});
          } else {
            receives.push_back({reader, part});
          }
        }
      }
    }
    return in_.group.exchange(sends, receives);
  }

  void scatter(const Manifest& manifest, const std::vector<ReadUnit>& units, std::pair<size_t, size_t> turn,
               std::span<const std::byte> block) {
    uint64_t at = 0;
    for (size_t u = turn.first; u < turn.second; ++u) {
      const ReadUnit& unit = units[u];
      if (unit.bytes == 0) continue;
      const StateTensor& tensor = (*in_.tensors)[ours_[unit.tensor]];
      const uint64_t width = size_of(tensor.dtype);
      // Floats in two halves lie at two bytes each.
      const uint64_t step = tensor.remainders == nullptr ? width : width / 2;
      each_common(manifest, unit, {tensor.first, tensor.first + tensor.held(), tensor.cut},
                  [&](uint64_t from, uint64_t to, uint64_t count) {
                    const uint64_t offset = (to - tensor.first) * step;
                    in_.copier->begin_copy_in(tensor.data + offset,
                                              tensor.remainders == nullptr ? nullptr : tensor.remainders + offset,
                                              block.data() + at + from * width, count * width);
                  });
      at += unit.bytes;
    }
  }

  RestoreInput& in_;
  std::vector<size_t> ours_;
  std::vector<std::vector<Held>> wanted_;  // by rank and tensor; empty: everybody holds everything
  std::set<std::string> in_memory_;
  uint64_t bytes_read_ = 0;
};

}  // namespace

Result<RestoreOutput> restore_newest(RestoreInput& input, const std::optional<ResumePoint>& proposal) {
  return Restorer(input).run(proposal);
}

}  // namespace pitcrew::trainer
