#include "trainer/model/tensor_part.hpp"

#include <numeric>

namespace pitcrew::trainer {

Result<ModelConfig> tensor_part(const ModelConfig& model, uint32_t tensor) {
  ModelConfig part = model;
  if (tensor == 1) return part;
  const auto divide = [&](uint32_t& value, const char* what) -> Status {
    if (value % tensor != 0) {
      const uint32_t most = std::gcd(std::gcd(model.heads, model.kv_heads), model.mlp);
      return Error(Code::kInvalidArgument,
                   std::string(what) + " " + std::to_string(value) + " can't be dealt evenly to " +
                       std::to_string(tensor) +
                       " tensor ranks; choose a parallel.tensor that divides heads, kvHeads and "
                       "mlp: a divisor of " +
                       std::to_string(most));
    }
    value /= tensor;
    return {};
  };
  part.own_head_width = model.head_width();
  PITCREW_TRY(divide(part.heads, "model.heads"));
  PITCREW_TRY(divide(part.kv_heads, "model.kvHeads"));
  PITCREW_TRY(divide(part.mlp, "model.mlp"));
  part.vocab = static_cast<uint32_t>(held_rows(model.vocab, {0, tensor}).count);
  part.vocab_used = 0;
  part.context = static_cast<uint32_t>(held_rows(model.context, {0, tensor}).count);
  return part;
}

Status check_predictions(uint64_t predictions, uint32_t tensor) {
  if (predictions % tensor == 0) return {};
  return Error(Code::kInvalidArgument, "a lane's " + std::to_string(predictions) +
                                           " predictions can't be dealt evenly to " + std::to_string(tensor) +
                                           " tensor ranks; choose batch.micro or batch.tokens so that " +
                                           std::to_string(tensor) + " divides their product");
}

}  // namespace pitcrew::trainer
