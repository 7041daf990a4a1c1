#include "trainer/train/replica_check.hpp"

#include <algorithm>
#include <cmath>
#include <map>

namespace pitcrew::trainer {
namespace {

// A flipped bit of the exponent changes a tensor's square sum by far more, what rounding leaves by far less.
constexpr double kLarger = 1.5;

// Ranks that don't have what more than half have; nothing where no value has a majority.
std::optional<std::vector<uint32_t>> minority(const std::vector<std::vector<uint64_t>>& digests, size_t tensor) {
  std::map<uint64_t, size_t> votes;
  for (const auto& of_rank : digests) ++votes[of_rank[tensor]];
  for (const auto& [digest, count] : votes) {
    if (count * 2 <= digests.size()) continue;
    std::vector<uint32_t> odd;
    for (uint32_t rank = 0; rank < digests.size(); ++rank) {
      if (digests[rank][tensor] != digest) odd.push_back(rank);
    }
    return odd;
  }
  return std::nullopt;
}

std::vector<uint32_t> implausible(const std::vector<double>& weights) {
  double smallest = std::numeric_limits<double>::infinity();
  for (const double weight : weights) smallest = std::isfinite(weight) ? std::min(smallest, weight) : smallest;
  std::vector<uint32_t> odd;
  for (uint32_t rank = 0; rank < weights.size(); ++rank) {
    if (!std::isfinite(weights[rank]) || weights[rank] > kLarger * smallest) odd.push_back(rank);
  }
  if (odd.size() * 2 > weights.size() || odd.size() == weights.size()) odd.clear();
  return odd;
}

std::optional<size_t> first_difference(const std::vector<std::vector<uint64_t>>& digests, size_t& count) {
  std::optional<size_t> first;
  count = 0;
  for (size_t tensor = 0; tensor < digests[0].size(); ++tensor) {
    const bool same = std::all_of(digests.begin(), digests.end(),
                                  [&](const auto& of_rank) { return of_rank[tensor] == digests[0][tensor]; });
    if (same) continue;
    ++count;
    if (!first) first = tensor;
  }
  return first;
}

std::string list(const std::vector<uint32_t>& ranks) {
  std::string text;
  for (const uint32_t rank : ranks) text += (text.empty() ? "" : ", ") + std::to_string(rank);
  return text;
}

}  // namespace

std::optional<ReplicaDifference> find_difference(const std::vector<std::vector<uint64_t>>& digests,
                                                 const std::vector<double>& weights,
                                                 const std::vector<std::string>& names,
                                                 const std::vector<uint32_t>& ranks) {
  size_t tensors = 0;
  const auto first = first_difference(digests, tensors);
  if (!first) return std::nullopt;
  ReplicaDifference difference;
  const std::string where = "the replicas' states differ in " + std::to_string(tensors) +
                            (tensors == 1 ? " tensor" : " tensors") + ", the first is " + names[*first];
  const auto in_world = [&](std::vector<uint32_t> odd) {
    for (uint32_t& rank : odd) rank = ranks.empty() ? rank : ranks[rank];
    return odd;
  };
  if (const auto odd = minority(digests, *first)) {
    difference.odd = in_world(*odd);
    difference.message =
        where + ": rank " + list(difference.odd) + " has other bits than the majority; its memory is suspect";
    return difference;
  }
  if (!weights.empty()) difference.odd = in_world(implausible(weights));
  difference.message =
      where + (difference.odd.empty()
                   ? ": which replica is right can't be told; going back to the checkpoint"
                   : ": rank " + list(difference.odd) + " has values that can't be right; its memory is suspect");
  return difference;
}

Result<std::optional<ReplicaDifference>> compare_replicas(Comm& comm, LaneEngine& engine,
                                                          const std::vector<uint32_t>& ranks) {
  const std::vector<uint64_t> own = engine.state_digests();
  std::vector<uint64_t> flat(own.size() * comm.size());
  PITCREW_TRY(comm.all_gather(std::as_bytes(std::span(own)), std::as_writable_bytes(std::span(flat))));
  std::vector<std::vector<uint64_t>> digests;
  for (uint32_t rank = 0; rank < comm.size(); ++rank) {
    const auto at = flat.begin() + static_cast<ptrdiff_t>(rank * own.size());
    digests.emplace_back(at, at + static_cast<ptrdiff_t>(own.size()));
  }
  size_t count = 0;
  const auto first = first_difference(digests, count);
  if (!first) return std::optional<ReplicaDifference>();
  std::vector<double> weights(comm.size());
  const double mine = engine.state_square_sum(*first);
  PITCREW_TRY(comm.all_gather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(weights))));
  std::vector<std::string> names;
  for (const StateTensor& tensor : engine.state_tensors()) names.push_back(tensor.name);
  return find_difference(digests, weights, names, ranks);
}

}  // namespace pitcrew::trainer
