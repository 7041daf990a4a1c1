#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <type_traits>
#include <vector>

#include "lib/base/result.hpp"
#include "trainer/device/device.hpp"
#include "trainer/kernels/kernels.hpp"
#include "trainer/model/config.hpp"
#include "trainer/parallel/shard_layout.hpp"
#include "trainer/tensor/arena.hpp"
#include "trainer/tensor/precision.hpp"
#include "trainer/tensor/state.hpp"

namespace pitcrew::trainer {

// One parameter: where it lies in the arenas of parameters, gradients and moments, which are all laid out alike.
struct Parameter {
  size_t slice = 0;
  bool decay = false;   // matrices decay, gains and biases don't
  double init_std = 0;  // normal with this deviation; 0: all `init_value`
  double init_value = 0;
  std::vector<uint64_t> shape = {};  // of the whole tensor; the slice has the shape of what is held, padding included
  TensorCut cut = {};
  bool replicated() const { return cut.whole(); }  // all tensor ranks hold all of it
};

// The model's parameters in their order. Names: embed.weight, position.weight (gpt2), layers.N.{norm1, attn.qkv,
// attn.out, norm2, mlp.up, mlp.down}.{weight, bias}, norm.weight, head.weight (absent where tied). Linear weights are
// [out, in]; qkv holds the rows of all query heads, then of key heads, then of value heads; llama's mlp.up holds the
// gate's rows, then up's. Relatives of llama add attn.qkv.bias and layers.N.attn.{qnorm, knorm}.weight. The arena's
// types are those of masters and gradients; weights of type T lie at the same elements.
//
// Of tensor ranks each holds a part: of qkv, up, embed, position and head rows, of out and down columns; norms and
// biases of out and down all hold. Where the vocabulary or the context can't be dealt evenly, slices end with rows that
// don't exist: zeros for ever.
struct ParameterLayout {
  ArenaLayout arena;
  std::vector<Parameter> parameters;
  // Elements of an arena with its padding: what flat operations (adding lanes, norms) run over. Padding is zero.
  template <typename T>
  uint64_t flat_elements() const {
    return arena.bytes() / sizeof(Wide<T>);
  }
  // The first element of a slice.
  template <typename T>
  uint64_t element(const Slice& slice) const {
    return slice.offset / sizeof(Wide<T>);
  }
};
template <typename T>
ParameterLayout parameter_layout(const ModelConfig& config, TensorPlace place = {});

// What of a flat arena the gradient's norm counts on a tensor rank: of what all of them hold only the first's. Runs in
// their order, multiples of 16 elements; their square sums are added one after another.
template <typename T>
std::vector<ShardLayout::Run> counted_runs(const ParameterLayout& layout, TensorPlace place);

struct AdamWSettings {
  double learning_rate = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double weight_decay = 0.1;
};

// What is trained: parameters and AdamW's moments, and, where T is narrower than these, the weights that the graph
// multiplies with. Owned by the trainer; between two optimizer steps nothing changes it.
template <typename T>
class ModelState {
 public:
  // Of this tensor rank's part. Where T is its own master, `masters` makes no difference. kInvalidArgument as
  // tensor_part().
  static Result<ModelState> create(const ModelConfig& config, Device& device, Masters masters = Masters::kFloat,
                                   TensorPlace place = {});

  // Counter-based: an element's value depends on the seed, the tensor's name and the element's index in the whole
  // tensor alone, on every machine and for every number of tensor ranks. Moments become zero. Done when it returns.
  void init(Kernels<T>& kernels, Stream& stream, uint64_t seed);

  const ParameterLayout& layout() const { return layout_; }
  uint64_t flat_elements() const { return layout_.template flat_elements<T>(); }
  // Parameters from host memory, flat_elements() of them. Done when it returns.
  void set_params(Kernels<T>& kernels, Stream& stream, const Wide<T>* host);
  // The masters; null where they are kept in two halves.
  Wide<T>* params() const { return params_.template as<Wide<T>>(); }
  Wide<T>* m() const { return m_.template as<Wide<T>>(); }
  Wide<T>* v() const { return v_.template as<Wide<T>>(); }
  // What Model takes: the masters themselves, or their rounded copy.
  const T* weights() const { return own_weights(); }
  // The masters' other halves; null where masters are whole.
  uint16_t* remainders() const { return remainders_.template as<uint16_t>(); }
  // Weights from masters, after these were filled (init() does it itself). Enqueues.
  void publish(Kernels<T>& kernels, Stream& stream) const;
  // Bytes on the device.
  uint64_t bytes() const { return params_.bytes() + m_.bytes() + v_.bytes() + weights_.bytes() + remainders_.bytes(); }
  // A gradient arena laid out like the parameters, zeroed.
  Result<Arena> create_gradients(Device& device, std::string_view name) const {
    return Arena::create(device, name, layout_.arena);
  }

  // Parameters ("layers.3.attn.qkv.weight") in their order, then all ".m", then all ".v". Pointers last as long as
  // this.
  std::vector<StateTensor> state_tensors() const;

  // Called with the number of a state tensor before it is written.
  using BeforeWrite = std::function<void(size_t tensor)>;
  // One AdamW step, predicated on the device: where `gradient->finite` is 0 nothing changes. `gradient->scale`
  // multiplies every gradient (1/tokens, and clipping). `step` counts from 1.
  void adamw(Kernels<T>& kernels, Stream& stream, const Wide<T>* gradients, const GradientSummary* gradient,
             const AdamWSettings& settings, uint64_t step, const BeforeWrite& before_write = {}) const;

 private:
  static constexpr bool kOwnMaster = std::is_same_v<T, Wide<T>>;
  T* own_weights() const {
    if constexpr (kOwnMaster) return params();
    return weights_.template as<T>();
  }

  ParameterLayout layout_;
  Arena params_, m_, v_;
  Buffer weights_;     // empty where T is its own master
  Buffer remainders_;  // empty where params_ is not
};

}  // namespace pitcrew::trainer
