#include "trainer/model/tensor_part.hpp"
#include "trainer/train/attention_choice.hpp"
#include "trainer/train/run.hpp"

namespace pitcrew::trainer {

// What computes attention is settled before masters are: cuDNN's workspace is part of the plan. `request` gets it.
End Run::choose_attention_engine(cuda::Compute& gpu, PlanRequest& request) {
  PITCREW_END_ASSIGN(const ModelConfig part, tensor_part(config_.model, mesh_.grid().tensor),
                     exit_code::kBadConfiguration);
  const AttentionShape shape = attention_shape(part, {plan_.micro(), config_.tokens});
  PITCREW_END_ASSIGN(request, choose_attention(request, config_.attention, config_.master, gpu.total_bytes),
                     exit_code::kBadConfiguration);
  uint64_t version = 0;
  std::string why_not;
  if (request.attention == AttentionEngine::kCudnn) {
    const auto ready = gpu.attention->use_cudnn(shape, cudnn_workspace_bytes(shape));
    if (ready) {
      version = *ready;
    } else {
      why_not = ready.error().message;
    }
  } else if (!config_.attention) {
    const Status used = check_cudnn_shape(shape);
    why_not = used ? "cuDNN's workspace does not fit beside the model" : used.error().message;
  }
  std::vector<uint64_t> versions(comm_.size());
  PITCREW_END(comm_.all_gather(std::as_bytes(std::span(&version, 1)), std::as_writable_bytes(std::span(versions))),
              exit_code::kTryAgain);
  PITCREW_END_ASSIGN(const AttentionChoice choice, choose_together(config_.attention, versions, why_not),
                     exit_code::kBadConfiguration);
  request.attention = choice.engine;
  if (choice.engine == AttentionEngine::kCudnn) {
    cudnn_ = version;
  } else {
    gpu.attention->use_own();
    if (!why_not.empty() && !is_first()) services_.log.warning("no cuDNN here", {{"why", why_not}});
  }
  if (!choice.line.empty()) print(choice.line);
  return {};
}

}  // namespace pitcrew::trainer
