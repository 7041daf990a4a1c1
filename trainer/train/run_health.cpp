#include <algorithm>
#include <cmath>

#include "trainer/train/replica_check.hpp"
#include "trainer/train/run.hpp"

namespace pitcrew::trainer {

void Run::open_replay() {
  StepReplay::Settings settings;
  settings.comm = &comm_;
  settings.engine = engine_.get();
  settings.micro = plan_.lane_sequences();
  const LaneShare lanes = lanes_;
  settings.stride = lanes.stride;
  const std::string basis = run_hash(config_) + source_->fingerprint() + std::to_string(lanes.first) + "-" +
                            std::to_string(lanes.first + lanes.number * lanes.stride) +
                            (lanes.stride > 1 ? "/" + std::to_string(lanes.stride) : "") + numerics().dump();
  settings.basis = hex64(xxh3(basis)).substr(0, 8);
  settings.replay = environment_.replay;
  settings.launcher = services_.launcher != nullptr;
  settings.files = services_.files;
  settings.folder = checkpoint().path;
  replay_.emplace(std::move(settings));
}

void Run::tell(const launcher_socket::Evidence& evidence) {
  services_.log.warning(evidence.message);
  if (services_.launcher == nullptr) return;
  const auto told = services_.launcher->call(evidence);
  if (!told) services_.log.warning("the launcher was not told", {{"error", told.error().message}});
}

// Nothing has changed: the optimizer was held back. The step is computed again from the same state with the same
// samples.
End Run::suspect(Pending pending, const GradientSummary& summary) {
  SuspectStep suspect;
  const double loss = pending.loss, loss_limit = pending.loss_limit;
  suspect.step = pending.step;
  suspect.spike = std::isfinite(loss) && std::isfinite(summary.norm);
  const std::string step = "step " + std::to_string(suspect.step.value) + ": ";
  if (!suspect.spike) {
    suspect.what = step + "loss or gradient is not finite";
  } else if (loss > loss_limit) {
    suspect.what = step + formatted("loss %.4g is a spike (believed up to %.4g)", loss, loss_limit);
  } else if (summary.norm <= spikes_.norm_limit()) {
    suspect.what = step + formatted("loss %.4g, gradient norm %.4g, under suspicion", loss, summary.norm);
  } else {
    suspect.what =
        step + formatted("gradient norm %.4g is a spike (believed up to %.4g)", summary.norm, spikes_.norm_limit());
  }
  suspect.tokens = pending.batch.tokens;
  suspect.first = std::move(pending.own);
  suspect.first_sample = samples_;
  suspect.samples = config_.sequences;
  suspect.own_first_sample = pending.batch.first_sample;
  suspect.gradient_norm = summary.norm;
  suspect.reduce_again = [&]() -> Result<double> {
    PITCREW_TRY(engine_->reduce(*reducer_));
    update(suspect.step, false);
    return engine_->updated().norm;
  };
  suspect.loss_bits = loss_bits(loss);
  suspect.gradient_bits = loss_bits(summary.norm);
  PITCREW_END_ASSIGN(const ReplayEnd end, replay_->look_into(suspect, pending.shared.confirmed), exit_code::kTryAgain);
  if (end.evidence) tell(*end.evidence);
  blamed_ = end.blamed;
  return Failure{Error(end.exit_code == exit_code::kBadData ? Code::kDataLoss : Code::kInternal, end.message),
                 end.exit_code};
}

uint64_t Run::common_digest() {
  const std::vector<StateTensor> tensors = engine_->state_tensors();
  const std::vector<uint64_t> digests = engine_->state_digests();
  std::vector<uint64_t> common;
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (tensors[i].cut.whole()) common.push_back(digests[i]);
  }
  return xxh3(common.data(), common.size() * sizeof(uint64_t));
}

// What the ranks that hold the same part found is everybody's: all end.
Result<std::optional<ReplicaDifference>> Run::find_difference() {
  PITCREW_ASSIGN(auto own, compare_replicas(replicas(), *engine_, mesh_.group(MeshAxis::kReplica)));
  if (mesh_.replicas_only()) return own;
  struct Word {
    uint32_t found = 0;
    uint32_t odd = ~0u;
    uint64_t common = 0;  // digest of what all tensor ranks hold
  };
  Word mine;
  if (own) mine = {1, own->odd.empty() ? ~0u : own->odd.front()};
  if (mesh_.grid().tensor > 1) mine.common = common_digest();
  std::vector<Word> all(comm_.size());
  PITCREW_TRY(comm_.all_gather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(all))));
  for (uint32_t rank = 0; rank < all.size() && !own; ++rank) {
    if (all[rank].found == 0) continue;
    own = ReplicaDifference{{}, "rank " + std::to_string(rank) + " and those that hold the same shard have gone apart"};
    if (all[rank].odd != ~0u) own->odd.push_back(all[rank].odd);
  }
  for (uint32_t rank = 0; rank < all.size() && !own && mesh_.grid().tensor > 1; ++rank) {
    Coordinates first = mesh_.at(rank);
    first.tensor = 0;
    const uint32_t other = mesh_.rank_of(first);
    if (all[rank].common == all[other].common) continue;
    own = ReplicaDifference{{},
                            "tensor ranks " + std::to_string(other) + " and " + std::to_string(rank) +
                                " differ in what all of them hold (norms and biases): which is right can't be told; "
                                "going back to the checkpoint"};
  }
  return own;
}

// All replicas apply the same gradients to the same state: one that differs has a machine that changes what it holds.
End Run::compare_states() {
  PITCREW_END_ASSIGN(const auto difference, find_difference(), exit_code::kTryAgain);
  if (!difference) return {};
  const std::string message = "step " + std::to_string(step_.value) + ": " + difference->message;
  const std::vector<uint32_t>& odd = difference->odd;
  const bool me = std::find(odd.begin(), odd.end(), rank_) != odd.end();
  if (!odd.empty() && !me) {
    blamed_ = Rank(odd.front());
    return Failure{Error(Code::kInternal, message), exit_code::kTryAgain};
  }
  if (me || is_first()) tell({Rank(rank_), "digest", message, std::nullopt, std::nullopt, ""});
  return Failure{Error(Code::kInternal, message), me ? exit_code::kReplaceNode : exit_code::kTryAgain};
}

}  // namespace pitcrew::trainer
