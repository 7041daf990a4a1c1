#include "trainer/train/step_replay.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "lib/base/digest.hpp"
#include "trainer/train/nonfinite.hpp"

namespace pitcrew::trainer {
namespace {

// A rank's word on a suspect step.
struct Card {
  uint32_t differs = 0;  // computed again it gave other bits
  uint32_t reserved = 0;
  double weight = 0;  // how much of what is wrong is this rank's: the largest has the step
};

constexpr double kWorst = std::numeric_limits<double>::infinity();
double badness(double value) { return std::isfinite(value) ? value : kWorst; }

std::string range(uint64_t first, uint64_t count) {
  if (count == 1) return "sample " + std::to_string(first);
  return "samples " + std::to_string(first) + " to " + std::to_string(first + count - 1);
}

bool same_bits(const std::vector<double>& a, const std::vector<double>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0);
}

}  // namespace

std::string StepReplay::digest(const OwnResult& own) const {
  const uint64_t losses = xxh3(own.losses.data(), own.losses.size() * sizeof(double));
  const uint64_t both[] = {losses, own.gradient};
  return settings_.basis + "-" + hex64(xxh3(both, sizeof both));
}

bool StepReplay::expected(Step step) const {
  return settings_.replay && settings_.replay->step == step && settings_.replay->rank.value == settings_.comm->rank();
}

StepReplay::Against StepReplay::compare(Step step, const OwnResult& own) const {
  if (!expected(step)) return Against::kNothing;
  const std::string& first = settings_.replay->digest;
  if (!first.starts_with(settings_.basis + "-")) return Against::kIncomparable;
  return first == digest(own) ? Against::kSame : Against::kOther;
}

bool StepReplay::same_as_first(Step step, const OwnResult& own) const { return compare(step, own) == Against::kSame; }

std::optional<launcher_socket::Evidence> StepReplay::passed(Step step, const OwnResult& own) const {
  const Against against = compare(step, own);
  if (against == Against::kNothing) return std::nullopt;
  launcher_socket::Evidence evidence{Rank(settings_.comm->rank()), "replay", "", std::nullopt, step, ""};
  evidence.message = "step " + std::to_string(step.value) + " is fine here; ";
  if (against == Against::kIncomparable) {
    evidence.message += "its bits can't be compared with those of node " + settings_.replay->node;
    return evidence;
  }
  evidence.digest = digest(own);
  evidence.message += "it gave other bits than on node " + settings_.replay->node;
  return evidence;
}

// Of a spike the lane with the highest loss, or the largest gradient; of what isn't finite, that.
Result<double> StepReplay::own_weight(const SuspectStep& suspect) const {
  double weight = 0;
  for (const double loss : suspect.first.losses) weight = std::max(weight, badness(loss));
  PITCREW_ASSIGN(double gradient, settings_.engine->own_square_sum());
  gradient = badness(gradient);
  if (suspect.spike || weight == kWorst || gradient == kWorst) return std::max(weight, gradient);
  return gradient;
}

Result<ReplayEnd> StepReplay::look_into(const SuspectStep& suspect, bool confirmed) {
  Comm& comm = *settings_.comm;
  OwnResult again;
  PITCREW_ASSIGN(again.losses, settings_.engine->compute(suspect.tokens));
  again.gradient = settings_.engine->own_digest();
  const bool same = same_bits(again.losses, suspect.first.losses) && again.gradient == suspect.first.gradient;
  const Against against = compare(suspect.step, suspect.first);
  Card mine{same ? 0u : 1u};
  PITCREW_ASSIGN(mine.weight, own_weight(suspect));
  // Whose step it was is known already where the first node's bits came again.
  if (confirmed) mine.weight = against == Against::kSame ? kWorst : 0;
  std::vector<Card> all(comm.size());
  PITCREW_TRY(comm.all_gather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(all))));

  ReplayEnd end;
  const auto witness = [&](uint32_t rank, const std::string& why) {
    end.blamed = Rank(rank);
    end.exit_code = exit_code::kTryAgain;
    end.message = suspect.what + "; rank " + std::to_string(rank) + why;
    return end;
  };
  const Rank own(comm.rank());
  if (!same) {
    end.exit_code = exit_code::kReplaceNode;
    end.message = suspect.what + "; computed again, rank " + std::to_string(own.value) +
                  " gave other bits: suspect hardware (digest " + digest(suspect.first) + ", then " + digest(again) +
                  ")";
    end.evidence = {own, suspect.spike ? "spike" : "nonfinite", end.message, std::nullopt, std::nullopt, ""};
    return end;
  }
  for (uint32_t rank = 0; rank < all.size(); ++rank) {
    if (all[rank].differs != 0) return witness(rank, " gave other bits when it computed again");
  }
  PITCREW_ASSIGN(const double norm, suspect.reduce_again());
  if (!same_bits({norm}, {suspect.gradient_norm}) && !(std::isnan(norm) && std::isnan(suspect.gradient_norm))) {
    end.exit_code = exit_code::kTryAgain;
    end.message = suspect.what +
                  "; computed again, every rank gave the same bits, and their sum another: the network or a host's "
                  "memory is suspect";
    if (own == Rank(0)) end.evidence = {own, "digest", end.message, std::nullopt, std::nullopt, ""};
    return end;
  }
  const auto worst =
      std::max_element(all.begin(), all.end(), [](const Card& a, const Card& b) { return a.weight < b.weight; });
  const auto rank = static_cast<uint32_t>(worst - all.begin());
  // Shards compute no lane alone.
  std::string where;
  if (rank == own.value || settings_.engine->collective()) {
    PITCREW_ASSIGN(where, worst_samples(suspect));
  }
  if (rank != own.value) return witness(rank, "'s part of it is what can't be right");
  return accuse(suspect, against, where);
}

// This rank's part of the step is what can't be right, and computing it again gave the same bits.
ReplayEnd StepReplay::accuse(const SuspectStep& suspect, Against against, const std::string& where) {
  const std::string kind = suspect.spike ? "spike" : "nonfinite";
  const Rank own(settings_.comm->rank());
  const std::string remedy = "; look at " + where + ", or lower optimizer.learningRate";
  ReplayEnd end;
  end.exit_code = exit_code::kBadData;
  if (against == Against::kSame && settings_.replay->elsewhere) {
    end.message = suspect.what + ", with the same bits as on node " + settings_.replay->node +
                  ": the program or the data are at fault" + remedy;
  } else if (against == Against::kSame) {
    end.message = suspect.what +
                  ", with the same bits again after a restart; not confirmed elsewhere, since no other "
                  "node was free: the program or the data are likely at fault" +
                  remedy;
  } else if (against == Against::kIncomparable) {
    end.message = suspect.what + ", as on node " + settings_.replay->node +
                  ", whose hardware is of another kind: the program or the data are at fault" + remedy;
  } else if (!settings_.launcher && noted_before(suspect)) {
    end.message = suspect.what +
                  " with the same bits as in an earlier epoch; not confirmed elsewhere: the program or "
                  "the data are likely at fault" +
                  remedy;
  } else {
    end.exit_code = exit_code::kTryAgain;
    end.message = suspect.what + ", twice with the same bits (digest " + digest(suspect.first) + ", " + where + ")";
    end.evidence = {own, kind, end.message, std::nullopt, suspect.step, digest(suspect.first)};
    return end;
  }
  end.evidence = {own, kind, end.message, std::nullopt, std::nullopt, ""};
  return end;
}

bool StepReplay::noted_before(const SuspectStep& suspect) {
  const auto noted =
      note_nonfinite(*settings_.files, settings_.folder, {suspect.step, suspect.loss_bits, suspect.gradient_bits});
  return noted && *noted;
}

// The lanes of this rank whose own gradient or loss is worst, as sample numbers.
Result<std::string> StepReplay::worst_samples(const SuspectStep& suspect) {
  PITCREW_ASSIGN(std::vector<double> weights, settings_.engine->lane_square_sums(suspect.tokens));
  for (size_t lane = 0; lane < weights.size(); ++lane) {
    weights[lane] =
        std::max(badness(weights[lane]),
                 lane < suspect.first.losses.size() && !std::isfinite(suspect.first.losses[lane]) ? kWorst : 0);
  }
  if (weights.empty()) return range(suspect.first_sample, suspect.samples);
  const size_t worst = static_cast<size_t>(std::max_element(weights.begin(), weights.end()) - weights.begin());
  // Where all lanes are as bad, none is named above the others.
  const auto as_bad = std::count(weights.begin(), weights.end(), weights[worst]);
  if (as_bad == static_cast<ptrdiff_t>(weights.size()))
    return range(suspect.own_first_sample, ((weights.size() - 1) * settings_.stride + 1) * settings_.micro);
  return range(suspect.own_first_sample + worst * settings_.stride * settings_.micro, settings_.micro);
}

}  // namespace pitcrew::trainer
