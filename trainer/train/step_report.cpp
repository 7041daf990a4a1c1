#include "trainer/train/step_report.hpp"

#include <algorithm>
#include <cstring>

namespace pitcrew::trainer {
namespace {

struct Packed {
  uint64_t request;
  uint32_t stop;
  uint32_t durable;
  uint32_t memory;
  uint32_t confirmed;
};

}  // namespace

Result<StepReport> share(Comm& comm, const LanePlan& plan, const StepReport& mine) {
  const size_t width = sizeof(Packed) + plan.micro_steps() * sizeof(double);
  std::vector<std::byte> own(width), all(width * comm.size());
  const Packed packed{mine.save_request, mine.stop, mine.save_durable, mine.save_memory, mine.confirmed};
  std::memcpy(own.data(), &packed, sizeof packed);
  if (!mine.losses.empty())
    std::memcpy(own.data() + sizeof packed, mine.losses.data(), mine.losses.size() * sizeof(double));
  PITCREW_TRY(comm.all_gather(own, all));

  StepReport shared;
  shared.losses.resize(plan.lanes());
  const uint32_t alike = comm.size() / plan.ranks();  // tensor ranks compute the same lanes
  for (uint32_t rank = 0; rank < comm.size(); ++rank) {
    const std::byte* at = all.data() + rank * width;
    Packed theirs;
    std::memcpy(&theirs, at, sizeof theirs);
    shared.stop = shared.stop || theirs.stop != 0;
    shared.confirmed = shared.confirmed || theirs.confirmed != 0;
    shared.save_request = std::max(shared.save_request, theirs.request);
    if (rank == 0) {
      shared.save_durable = theirs.durable != 0;
      shared.save_memory = theirs.memory != 0;
    }
    if (rank % alike != 0) continue;
    const LaneShare lanes = plan.of(rank / alike);
    for (uint32_t i = 0; i < lanes.count(); ++i)
      std::memcpy(&shared.losses[lanes[i]], at + sizeof theirs + i * sizeof(double), sizeof(double));
  }
  return shared;
}

}  // namespace pitcrew::trainer
