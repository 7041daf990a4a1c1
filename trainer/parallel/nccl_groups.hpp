#pragma once

#include <memory>

#include "trainer/comm/nccl/nccl_comm.hpp"
#include "trainer/parallel/mesh_comms.hpp"

namespace pitcrew::trainer {

// NCCL's communicators of a rank's groups, one for each kind of traffic, over the device's memory: who waits in one
// does not hold another. The ranks of a group meet over `meetings`, which outlive what is made; so do device and watch.
// A group of one rank has nothing to move and gets no communicator of NCCL's. Of `settings` group and members are set
// here.
MeshCommFactory nccl_groups(std::shared_ptr<const nccl::Api> api, MeshComms& meetings, Device& device, PeerWatch* watch,
                            NcclSettings settings);

}  // namespace pitcrew::trainer
