#include "agent/probe/versions/clashes.hpp"

#include <algorithm>
#include <charconv>

namespace pitcrew::agent::versions {
namespace {

constexpr Clash kClashes[] = {
    {{"nccl", "2.19", ""},
     {"efa-installer", "", "1.29"},
     "NCCL allocates memory that libfabric of this installer can't register; set FI_EFA_SET_CUDA_SYNC_MEMOPS=0 or "
     "install "
     "EFA 1.29 or later",
     "aws/aws-ofi-nccl#584"},
    {{"aws-ofi-nccl", "1.8", "1.21"},
     {"libfabric", "", "1.18"},
     "the plugin needs libfabric 1.18 or later, else it is left out and NCCL falls back to TCP",
     "aws-ofi-nccl release notes 1.8.1 to 1.9.1; aws/aws-ofi-nccl#241, awslabs/awsome-distributed-ai#292"},
    {{"aws-ofi-nccl", "1.20", ""},
     {"libfabric", "", "1.22"},
     "the plugin's AWS support needs libfabric 1.22 or later",
     "aws-ofi-nccl release notes 1.20.0 and 1.21.1"},
    {{"aws-ofi-nccl", "1.20", ""},
     {"nccl", "", "2.17.1"},
     "the plugin supports NCCL from 2.17.1 on",
     "aws-ofi-nccl release notes 1.20.0 and 1.21.1"},
    {{"aws-ofi-nccl", "", "1.20"},
     {"nccl", "2.28.9", "2.29"},
     "collectives hang or fail with rail mismatches; the plugin was tested with this NCCL from 1.20 on",
     "aws/aws-ofi-nccl#1055, NVIDIA/nccl#1913; release notes 1.20.0"},
    {{"cuda", "13.0", ""},
     {"nvidia-driver", "", "580"},
     "CUDA 13 needs driver 580 or later",
     "NVIDIA CUDA release notes, minimum driver of each major version"},
    {{"cuda", "12.0", "13.0"},
     {"nvidia-driver", "", "525.60.13"},
     "CUDA 12 needs driver 525.60.13 or later",
     "NVIDIA CUDA release notes, minimum driver of each major version"},
};

bool in_range(const Range& range, const Version& version) {
  const auto from = parse_version(range.from), below = parse_version(range.below);
  return (!from || version >= *from) && (!below || version < *below);
}

}  // namespace

std::strong_ordering Version::operator<=>(const Version& other) const {
  const size_t length = std::max(numbers.size(), other.numbers.size());
  for (size_t i = 0; i < length; ++i) {
    const unsigned mine = i < numbers.size() ? numbers[i] : 0, theirs = i < other.numbers.size() ? other.numbers[i] : 0;
    if (mine != theirs) return mine <=> theirs;
  }
  return std::strong_ordering::equal;
}

std::optional<Version> parse_version(std::string_view text) {
  constexpr size_t kMaxNumbers = 4;
  if (text.starts_with('v') || text.starts_with('r')) text.remove_prefix(1);
  Version version;
  while (version.numbers.size() < kMaxNumbers) {
    unsigned number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc()) break;
    version.numbers.push_back(number);
    text.remove_prefix(static_cast<size_t>(end - text.data()));
    if (!text.starts_with('.')) break;
    text.remove_prefix(1);
  }
  if (version.numbers.empty()) return std::nullopt;
  return version;
}

std::span<const Clash> known_clashes() { return kClashes; }

std::vector<std::string> find_clashes(const Versions& versions) {
  std::vector<std::string> found;
  for (const Clash& clash : kClashes) {
    const auto one = versions.find(clash.one.component), other = versions.find(clash.other.component);
    if (one == versions.end() || other == versions.end()) continue;
    const auto mine = parse_version(one->second), theirs = parse_version(other->second);
    if (!mine || !theirs || !in_range(clash.one, *mine) || !in_range(clash.other, *theirs)) continue;
    found.push_back(one->first + " " + one->second + " with " + other->first + " " + other->second + ": " +
                    std::string(clash.why) + " (" + std::string(clash.source) + ")");
  }
  return found;
}

}  // namespace pitcrew::agent::versions
