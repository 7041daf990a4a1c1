#include "trainer/parallel/nccl_groups.hpp"

#include "trainer/comm/group_comm.hpp"

namespace pitcrew::trainer {

MeshCommFactory nccl_groups(std::shared_ptr<const nccl::Api> api, MeshComms& meetings, Device& device, PeerWatch* watch,
                            NcclSettings settings) {
  return [=, &meetings, &device](MeshTraffic traffic, const Mesh& mesh) -> Result<std::unique_ptr<Comm>> {
    Comm& meeting = meetings[traffic];
    if (meeting.size() == 1) return std::unique_ptr<Comm>(std::make_unique<GroupComm>(meeting, std::vector{0u}));
    NcclSettings own = settings;
    own.members = mesh.group(axis_of(traffic));
    own.group = std::string(to_string(traffic)) + " group of ranks";
    for (const uint32_t member : own.members)
      own.group += (member == own.members[0] ? " " : ", ") + std::to_string(member);
    PITCREW_ASSIGN(auto made, NcclComm::create(api, meeting, device, watch, std::move(own)));
    return std::unique_ptr<Comm>(std::move(made));
  };
}

}  // namespace pitcrew::trainer
