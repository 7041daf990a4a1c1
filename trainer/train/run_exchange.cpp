#include "trainer/train/memory_plan.hpp"
#include "trainer/train/run.hpp"

namespace pitcrew::trainer {
namespace {

// What a rank brings to the question whether NCCL can be used.
struct Card {
  int32_t version = 0;  // of its NCCL; 0: it can't
  uint32_t reserved = 0;
  uint64_t gpu = 0;  // which one; 0: no GPU's memory is moved
};

// Why these ranks can't use NCCL together; empty: they can.
std::string obstacle(const std::vector<Card>& cards) {
  for (uint32_t rank = 0; rank < cards.size(); ++rank) {
    const std::string name = "rank " + std::to_string(rank);
    if (cards[rank].version == 0) return name + " can't use NCCL (its own lines say why)";
    if (cards[rank].version != cards[0].version) {
      return name + " has NCCL " + nccl::version_text(cards[rank].version) + ", rank 0 has " +
             nccl::version_text(cards[0].version) + "; install the same on all nodes";
    }
    for (uint32_t other = 0; cards[rank].gpu != 0 && other < rank; ++other) {
      if (cards[other].gpu == cards[rank].gpu)
        return "ranks " + std::to_string(other) + " and " + std::to_string(rank) +
               " share a GPU, which NCCL does not allow; start one rank for each";
    }
  }
  return "";
}

}  // namespace

Result<std::shared_ptr<const nccl::Api>> Run::find_nccl() const {
  if (services_.host_nccl) return services_.host_nccl;
  if (device_->host_memory()) {
    return Error(Code::kUnsupported,
                 "comm.backend: nccl needs a GPU for each rank, but this one trains on the CPU; set it to tcp or auto");
  }
  return nccl::load();
}

// All ranks or none: whoever can't says why, and all others say who.
End Run::agree_on_nccl() {
  if (comm_.size() == 1 || config_.backend == CommBackend::kTcp) return {};
  auto api = find_nccl();
  Card mine;
  if (api) mine = {(*api)->version, 0, gpu_identity_.empty() ? 0 : xxh3(gpu_identity_)};
  std::vector<Card> cards(comm_.size());
  PITCREW_END(comm_.all_gather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(cards))),
              exit_code::kTryAgain);
  const std::string why_not = obstacle(cards);
  if (why_not.empty()) {
    api_ = std::move(*api);
    nccl_adds_ = config_.reduce == CommReduce::kNccl;
    return {};
  }
  if (nccl_required())
    return Failure{api ? Error(Code::kUnsupported, why_not) : api.error(), exit_code::kBadConfiguration};
  if (!device_->host_memory()) {
    if (!api) services_.log.warning("no NCCL here", {{"why", api.error().message}});
    print("gradients go through the hosts' memory and TCP: " + why_not);
  }
  return {};
}

// The groups' communicators in the hosts' memory, and NCCL's where it is used. The engine stands on them; what is
// between replicas alone is made later, by meet().
End Run::open_groups() {
  if (!mesh_.replicas_only()) {
    PITCREW_INVARIANT(services_.mesh != nullptr, "a divided grid needs communicators of its groups");
    PITCREW_END_ASSIGN(groups_, MeshComms::create(mesh_, services_.mesh), exit_code::kTryAgain);
  }
  if (!groups_) return {};
  if (api_ != nullptr) {
    if (auto failed = open_nccl()) return failed;
  }
  gather_comm_.emplace(moves(MeshTraffic::kGather), ObservedComm::Observer{}, track("gather"));
  reduce_comm_.emplace(moves(MeshTraffic::kReduce), ObservedComm::Observer{}, track("reduce"));
  if (!moves(MeshTraffic::kTensor).device_memory())
    tensor_comm_.emplace(moves(MeshTraffic::kTensor), uncounted(), track("tensor"));
  replica_comm_.emplace((*groups_)[MeshTraffic::kReplica], observer(), track("replica"), comm_.sequence());
  return {};
}

End Run::open_nccl() {
  NcclSettings settings;
  settings.connect_timeout = config_.connect_timeout;
  settings.collective_timeout = config_.collective_timeout;
  settings.cancelled = services_.stop_asked;
  settings.observer = uncounted();
  settings.recorder = track("tensor");
  std::optional<Error> failure;
  if (groups_) {
    auto made = MeshComms::create(mesh_, nccl_groups(api_, *groups_, *device_, services_.watch, std::move(settings)));
    if (made) {
      nccl_groups_ = std::move(*made);
    } else {
      failure = made.error();
    }
  } else {
    auto made = NcclComm::create(api_, *services_.training, *device_, services_.watch, std::move(settings));
    if (made) {
      nccl_ = std::move(*made);
    } else {
      failure = made.error();
    }
  }
  if (failure) {
    const bool hopeless = failure->code == Code::kUnsupported;
    return Failure{*failure, hopeless ? exit_code::kBadConfiguration : exit_code::kTryAgain};
  }
  print((groups_ ? "weights, gradients and activations" : "gradients") + std::string(" go from GPU to GPU by NCCL ") +
        nccl::version_text(api_->version));
  return {};
}

// What is between replicas; needs nothing of a checkpoint.
End Run::meet() {
  if (api_ != nullptr && !groups_) {
    if (auto failed = open_nccl()) return failed;
  }
  return open_exchange();
}

// What carries the replicas' gradients, and who adds them.
End Run::open_exchange() {
  Comm* const below = nccl_ ? nccl_.get() : nccl_groups_ ? &(*nccl_groups_)[MeshTraffic::kReplica] : nullptr;
  auto* const nccl = dynamic_cast<NcclComm*>(below);
  // Of shards a thread of the engine's reduces while the backward pass runs; the training thread says when it waits.
  const bool early = plan_.shards() > 1 && plan_.replicas() > 1;
  const auto exchanged_by = [&](Comm& comm) {
    return early ? ObservedComm(comm, {}, track("replica"))
                 : ObservedComm(comm, observer(), track(groups_ ? "replica" : ""), comm_.sequence());
  };
  if (nccl == nullptr) {
    if (early) early_comm_.emplace(exchanged_by((*groups_)[MeshTraffic::kReplica]));
    reducer_.emplace(early ? *early_comm_ : replicas(), plan_);
    if (early) engine_->reduce_early(&*reducer_);
    return {};
  }
  device_comm_.emplace(exchanged_by(*nccl));
  reducer_.emplace(*device_comm_, plan_, kDevicePiece, engine_->create_pieces());
  if (early) engine_->reduce_early(&*reducer_);
  if (!nccl_adds_) return {};
  reducer_->let_add([this, nccl](std::span<float> values) {
    return device_comm_->observed("all_reduce", values.size_bytes(), [&] { return nccl->all_reduce_sum(values); });
  });
  print("not reproducible: gradients are added by NCCL (comm.reduce: nccl), in an order that depends on the ranks");
  return {};
}

// What results depend on: the device, how many ranks share the width, and who adds gradients.
Json Run::numerics() const {
  Json numerics = Json::parse(device_->numerics());
  if (cudnn_ != 0) numerics["attention"] = "cudnn " + cudnn_version_text(cudnn_);
  if (mesh_.grid().tensor > 1) numerics["tensor"] = mesh_.grid().tensor;
  if (!reproducible()) numerics["reduce"] = "nccl, not reproducible";
  return numerics;
}

}  // namespace pitcrew::trainer
