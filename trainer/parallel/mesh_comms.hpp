#pragma once

#include <array>
#include <functional>
#include <memory>
#include <vector>

#include "trainer/comm/comm.hpp"
#include "trainer/parallel/mesh.hpp"

namespace pitcrew::trainer {

// What a rank talks about with its groups. Each kind has a communicator of its own, used from one thread: none waits
// for another, and bytes of two kinds may be under way at once. The replicas' is the engine's thread's while a step is
// computed and reduced, and the training thread's between steps.
enum class MeshTraffic : uint32_t {
  kGather = 0,  // shards: weights of the next block
  kReduce,      // shards: gradients of the last block
  kReplica,     // replicas: a shard's gradients and digests
  kTensor,      // tensor ranks: activations
};
constexpr uint32_t kMeshTraffics = 4;
MeshAxis axis_of(MeshTraffic traffic);
const char* to_string(MeshTraffic traffic);

// Makes this rank's communicator for one kind of traffic, of mesh.group(axis_of(traffic)). Collective over all ranks:
// called in the order of the kinds.
using MeshCommFactory = std::function<Result<std::unique_ptr<Comm>>(MeshTraffic traffic, const Mesh& mesh)>;

// Groups over channels of all ranks, one for each kind of traffic (TcpComm::connect with so many more; a MemoryGroup
// each). The channels outlive what is made.
MeshCommFactory groups_over(std::array<Comm*, kMeshTraffics> channels);

// A rank's communicators, by kind of traffic. Owned by its training; abort() from any thread ends all of them.
class MeshComms {
 public:
  static Result<MeshComms> create(const Mesh& mesh, const MeshCommFactory& factory);

  Comm& operator[](MeshTraffic traffic) { return *comms_[static_cast<uint32_t>(traffic)]; }
  void abort();
  // The world's rank that one of them died of.
  std::optional<uint32_t> lost_peer() const;

 private:
  std::array<std::unique_ptr<Comm>, kMeshTraffics> comms_;
};

}  // namespace pitcrew::trainer
