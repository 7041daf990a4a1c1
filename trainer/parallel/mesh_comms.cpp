#include "trainer/parallel/mesh_comms.hpp"

#include "trainer/comm/group_comm.hpp"

namespace pitcrew::trainer {

MeshAxis axis_of(MeshTraffic traffic) {
  switch (traffic) {
    case MeshTraffic::kGather:
    case MeshTraffic::kReduce:
      return MeshAxis::kShard;
    case MeshTraffic::kReplica:
      return MeshAxis::kReplica;
    case MeshTraffic::kTensor:
      return MeshAxis::kTensor;
  }
  return MeshAxis::kShard;
}

const char* to_string(MeshTraffic traffic) {
  switch (traffic) {
    case MeshTraffic::kGather:
      return "gather";
    case MeshTraffic::kReduce:
      return "reduce";
    case MeshTraffic::kReplica:
      return "replica";
    case MeshTraffic::kTensor:
      return "tensor";
  }
  return "?";
}

MeshCommFactory groups_over(std::array<Comm*, kMeshTraffics> channels) {
  return [channels](MeshTraffic traffic, const Mesh& mesh) -> Result<std::unique_ptr<Comm>> {
    Comm& channel = *channels[static_cast<uint32_t>(traffic)];
    return std::unique_ptr<Comm>(std::make_unique<GroupComm>(channel, mesh.group(axis_of(traffic))));
  };
}

Result<MeshComms> MeshComms::create(const Mesh& mesh, const MeshCommFactory& factory) {
  MeshComms comms;
  for (uint32_t i = 0; i < kMeshTraffics; ++i) {
    const auto traffic = static_cast<MeshTraffic>(i);
    auto made = factory(traffic, mesh);
    if (!made) return made.error().with_context(std::string("make the ") + to_string(traffic) + " communicator");
    comms.comms_[i] = std::move(*made);
  }
  return comms;
}

void MeshComms::abort() {
  for (const auto& comm : comms_) comm->abort();
}

std::optional<uint32_t> MeshComms::lost_peer() const {
  for (const auto& comm : comms_) {
    if (const auto lost = comm->lost_peer()) return lost;
  }
  return std::nullopt;
}

}  // namespace pitcrew::trainer
