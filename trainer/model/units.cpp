#include "trainer/model/units.hpp"

#include "trainer/model/parameters.hpp"
#include "trainer/tensor/precision.hpp"

namespace pitcrew::trainer {

template <typename T>
std::vector<uint64_t> unit_bounds(const ModelConfig& config, TensorPlace place) {
  const ParameterLayout layout = parameter_layout<T>(config, place);
  const auto begin = [&](const std::string& name) { return layout.template element<T>(*layout.arena.find(name)); };
  std::vector<uint64_t> bounds{0};
  for (uint32_t layer = 0; layer < config.layers; ++layer)
    bounds.push_back(begin("layers." + std::to_string(layer) + ".norm1.weight"));
  bounds.push_back(begin("norm.weight"));
  bounds.push_back(layout.template flat_elements<T>());
  return bounds;
}

template std::vector<uint64_t> unit_bounds<float>(const ModelConfig&, TensorPlace);
template std::vector<uint64_t> unit_bounds<double>(const ModelConfig&, TensorPlace);
template std::vector<uint64_t> unit_bounds<BF16>(const ModelConfig&, TensorPlace);

}  // namespace pitcrew::trainer
