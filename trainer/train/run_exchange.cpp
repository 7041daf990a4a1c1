#include "trainer/train/run.hpp"

namespace pitcrew::trainer {
namespace {

// Of every subtree, in the device's memory; NCCL is slow with messages much smaller than its own buffers.
constexpr size_t kDevicePiece = size_t{2} << 20;

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

// What carries gradients between ranks, and who adds them.
End Run::open_exchange() {
  const bool required = config_.backend == CommBackend::kNccl || config_.reduce == CommReduce::kNccl;
  if (groups_ && required) {
    return Failure{Error(Code::kUnsupported,
                         "comm.backend: shards and tensor ranks talk through the hosts' memory in this version; set it "
                         "to auto or tcp, "
                         "and comm.reduce to ordered"),
                   exit_code::kBadConfiguration};
  }
  if (!groups_ && comm_.size() > 1 && config_.backend != CommBackend::kTcp) {
    if (auto failed = open_nccl()) return failed;
  }
  if (!nccl_) {
    reducer_.emplace(replicas(), plan_);
    return {};
  }
  device_comm_.emplace(*nccl_, observer(), services_.recorder, comm_.sequence());
  reducer_.emplace(*device_comm_, plan_, kDevicePiece, engine_->create_pieces());
  if (config_.reduce == CommReduce::kOrdered) return {};
  reducer_->let_add([this](std::span<float> values) {
    return device_comm_->observed("all_reduce", values.size_bytes(), [&] { return nccl_->all_reduce_sum(values); });
  });
  print("not reproducible: gradients are added by NCCL (comm.reduce: nccl), in an order that depends on the ranks");
  return {};
}

Result<std::shared_ptr<const nccl::Api>> Run::find_nccl() const {
  if (services_.host_nccl) return services_.host_nccl;
  if (engine_->device().host_memory()) {
    return Error(Code::kUnsupported,
                 "comm.backend: nccl needs a GPU for each rank, but this one trains on the CPU; set it to tcp or auto");
  }
  return nccl::load();
}

// All ranks or none: whoever can't says why, and all others say who.
End Run::open_nccl() {
  const bool required = config_.backend == CommBackend::kNccl || config_.reduce == CommReduce::kNccl;
  const auto api = find_nccl();
  Card mine;
  if (api) mine = {(*api)->version, 0, gpu_identity_.empty() ? 0 : xxh3(gpu_identity_)};
  std::vector<Card> cards(comm_.size());
  PITCREW_END(comm_.all_gather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(cards))),
              exit_code::kTryAgain);
  const std::string why_not = obstacle(cards);
  if (!why_not.empty()) {
    if (required) return Failure{api ? Error(Code::kUnsupported, why_not) : api.error(), exit_code::kBadConfiguration};
    if (!engine_->device().host_memory()) {
      if (!api) services_.log.warning("no NCCL here", {{"why", api.error().message}});
      print("gradients go through the hosts' memory and TCP: " + why_not);
    }
    return {};
  }
  NcclSettings settings;
  settings.connect_timeout = config_.connect_timeout;
  settings.collective_timeout = config_.collective_timeout;
  settings.cancelled = services_.stop_asked;
  auto made = NcclComm::create(*api, *services_.training, engine_->device(), services_.watch, std::move(settings));
  if (!made) {
    const bool hopeless = made.error().code == Code::kUnsupported;
    return Failure{made.error(), hopeless ? exit_code::kBadConfiguration : exit_code::kTryAgain};
  }
  nccl_ = std::move(*made);
  print("gradients go from GPU to GPU by NCCL " + nccl::version_text((*api)->version));
  return {};
}

// What results depend on: the device, how many ranks share the width, and who adds gradients.
Json Run::numerics() const {
  Json numerics = Json::parse(engine_->device().numerics());
  if (mesh_.grid().tensor > 1) numerics["tensor"] = mesh_.grid().tensor;
  if (!reproducible()) numerics["reduce"] = "nccl, not reproducible";
  return numerics;
}

}  // namespace pitcrew::trainer
