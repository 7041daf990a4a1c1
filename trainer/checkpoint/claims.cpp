#include "trainer/checkpoint/claims.hpp"

#include <algorithm>

#include "trainer/checkpoint/name.hpp"

namespace pitcrew::trainer {
namespace {

constexpr uint64_t kSmallFile = 64 * 1024;
constexpr uint64_t kClaimsKept = 32;
constexpr int kAttempts = 16;

std::string claim_file(uint64_t number, std::string_view kind) {
  return "claims/" + std::to_string(number) + "." + std::string(kind);
}

}  // namespace

struct Claims::Found {
  JobIdentity job;
  EpochNumber epoch;
  bool readable = false;
};

Claims::Claims(Storage& storage, const Clock& clock, std::function<void(Duration)> pause, Settings settings)
    : storage_(storage), clock_(clock), pause_(std::move(pause)), settings_(settings) {}

Result<uint64_t> Claims::newest() const {
  PITCREW_ASSIGN(const auto entries, storage_.list("claims"));
  uint64_t newest = 0;
  for (const auto& entry : entries) {
    if (!entry.name.ends_with(".json")) continue;
    const auto number = parse_number(entry.name.substr(0, entry.name.size() - 5));
    if (number) newest = std::max(newest, *number);
  }
  return newest;
}

Result<Claims::Found> Claims::read(uint64_t number) const {
  PITCREW_ASSIGN(const std::string text, storage_.read(claim_file(number, "json"), kSmallFile));
  Found found;
  const auto json = parse_json(text);
  if (!json) return found;
  Problems problems;
  ObjectReader reader(*json, "", problems);
  if (auto job = reader.object("job")) {
    job->read("uid", found.job.uid);
    job->read("namespace", found.job.ns);
    job->read("name", found.job.name);
  }
  reader.read("term", found.job.term);
  reader.read("epoch", found.epoch);
  found.readable = problems.empty();
  return found;
}

Result<bool> Claims::living(uint64_t number) const {
  const auto beat = [&]() -> Result<std::string> {
    auto text = storage_.read(claim_file(number, "beat"), kSmallFile);
    if (!text && text.error().code == Code::kNotFound) return std::string();
    return text;
  };
  PITCREW_ASSIGN(const std::string first, beat());
  const Instant since = clock_.now();
  while (true) {
    PITCREW_ASSIGN(const auto entries, storage_.list("claims"));
    const std::string released = std::to_string(number) + ".released";
    if (std::any_of(entries.begin(), entries.end(), [&](const auto& entry) { return entry.name == released; }))
      return false;
    PITCREW_ASSIGN(const std::string now, beat());
    if (now != first) return true;
    if (clock_.now() - since >= settings_.living_within) return false;
    pause_(settings_.look_every);
  }
}

Result<uint64_t> Claims::take(const JobIdentity& job, EpochNumber epoch) {
  const EpochId mine{job.term, epoch};
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    PITCREW_ASSIGN(const uint64_t newest, this->newest());
    // Names of checkpoints count as well: a number is never used twice, even where claims were deleted by hand.
    uint64_t used = newest;
    PITCREW_ASSIGN(const auto entries, storage_.list(""));
    for (const auto& entry : entries) {
      if (const auto name = parse_checkpoint_name(entry.name)) used = std::max(used, name->claim);
    }
    if (newest > 0) {
      PITCREW_ASSIGN(const Found found, read(newest));
      if (found.readable && found.job.uid == job.uid) {
        if (EpochId{found.job.term, found.epoch} > mine) {
          return Error(Code::kConflict, "checkpoint folder " + storage_.path() + ": claim " + std::to_string(newest) +
                                            " is of epoch " + std::to_string(found.epoch.value) +
                                            " of this job; epoch " + std::to_string(epoch.value) +
                                            " is over and must not write");
        }
      } else {
        PITCREW_ASSIGN(const bool lives, living(newest));
        if (lives) {
          return Error(Code::kConflict, "checkpoint folder " + storage_.path() + " is being written by job " +
                                            found.job.ns + "/" + found.job.name + " (uid " + found.job.uid +
                                            ", claim " + std::to_string(newest) +
                                            "); give this job another checkpoint.path, or end the other job");
        }
        PITCREW_ASSIGN(const uint64_t again, this->newest());
        if (again != newest) continue;
      }
    }
    const Json content = {{"job", {{"uid", job.uid}, {"namespace", job.ns}, {"name", job.name}}},
                          {"term", job.term.value},
                          {"epoch", epoch.value},
                          {"time", to_rfc3339(clock_.now())}};
    const Status created = storage_.create(claim_file(used + 1, "json"),
                                           content.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
    if (!created && (created.error().code == Code::kAlreadyExists || created.error().code == Code::kNotFound)) continue;
    if (!created) return created.error().with_context("claim the checkpoint folder " + storage_.path());
    number_ = used + 1;
    PITCREW_TRY(beat());
    remove_old();
    return number_;
  }
  return Error(Code::kConflict, "checkpoint folder " + storage_.path() +
                                    ": others claim it all the time; give this job another checkpoint.path");
}

Status Claims::beat() { return storage_.replace(claim_file(number_, "beat"), std::to_string(++beats_) + "\n"); }

Status Claims::check() const {
  PITCREW_ASSIGN(const uint64_t newest, this->newest());
  if (newest <= number_) return {};
  return Error(Code::kConflict, "checkpoint folder " + storage_.path() + ": claim " + std::to_string(newest) +
                                    " is newer than ours, " + std::to_string(number_) +
                                    "; this epoch is over and writes no more");
}

Status Claims::release() { return storage_.replace(claim_file(number_, "released"), "\n"); }

void Claims::remove_old() const {
  const auto entries = storage_.list("claims");
  if (!entries) return;
  for (const auto& entry : *entries) {
    const auto number = parse_number(entry.name.substr(0, entry.name.find('.')));
    // What is left over here is tried again by the next epoch.
    if (number && *number + kClaimsKept < number_) (void)storage_.remove("claims/" + entry.name).ok();
  }
}

}  // namespace pitcrew::trainer
