#pragma once

#include <vector>

#include "trainer/model/parameters.hpp"
#include "trainer/parallel/shard_layout.hpp"

namespace pitcrew::trainer {

// One shard's slice of what ModelState holds, of this tensor rank's part: masters, moments and, where T is narrower,
// weights; of each unit the own piece. The same numbers at the same elements as without shards. Owned by the engine.
template <typename T>
class ShardedState {
 public:
  static Result<ShardedState> create(const ModelConfig& config, ShardLayout shards, uint32_t shard, Device& device,
                                     Masters masters, TensorPlace place = {});

  // As ModelState::init, of the own elements alone. Done when it returns.
  void init(Kernels<T>& kernels, Stream& stream, uint64_t seed);
  // The own slice of this tensor rank's flat elements in host memory. Done when it returns.
  void set_parameters(Kernels<T>& kernels, Stream& stream, const Wide<T>* flat);

  const ParameterLayout& layout() const { return layout_; }
  const ShardLayout& shards() const { return shards_; }
  uint64_t elements() const { return shards_.slice_elements(); }
  const T* weights() const;
  void publish(Kernels<T>& kernels, Stream& stream) const;
  // Runs of ModelState's tensors; of some none.
  std::vector<StateTensor> state_tensors() const;
  // As ModelState::adamw; `gradients` is a slice.
  void adamw(Kernels<T>& kernels, Stream& stream, const Wide<T>* gradients, const GradientSummary* gradient,
             const AdamWSettings& settings, uint64_t step,
             const typename ModelState<T>::BeforeWrite& before_write) const;

 private:
  static constexpr bool kOwnMaster = std::is_same_v<T, Wide<T>>;
  // What of a parameter, and of the padding behind it, is the own shard's.
  struct Held {
    size_t parameter = 0;
    uint64_t first = 0;   // within what the tensor rank holds of the parameter
    uint64_t count = 0;   // of its elements
    uint64_t padded = 0;  // with padding, and with rows that don't exist
    uint64_t offset = 0;  // in the slice
  };
  Wide<T>* params() const { return params_.template as<Wide<T>>(); }
  uint16_t* remainders() const { return remainders_.template as<uint16_t>(); }
  void find_held();
  void set_slice(Kernels<T>& kernels, Stream& stream, const std::vector<Wide<T>>& slice);

  ParameterLayout layout_;
  ShardLayout shards_;
  uint32_t shard_ = 0;
  std::vector<Held> held_;  // one for each parameter, in their order
  Buffer params_, m_, v_;
  Buffer weights_;     // empty where T is its own master
  Buffer remainders_;  // empty where params_ is not
};

}  // namespace pitcrew::trainer
