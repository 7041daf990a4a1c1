#include "trainer/model/small_gradients.hpp"

namespace pitcrew::trainer {

template <typename T>
void SmallGradients<T>::number(uint32_t unit, Weights& weights, size_t elements) {
  weights.small = next_;
  const auto add = [&](size_t parameter) {
    of_unit_[unit].push_back({parameter, elements, next_});
    next_ += small_stride(elements);
  };
  add(weights.weight);
  if (weights.has_bias) add(weights.bias);
}

template <typename T>
void SmallGradients<T>::add_up(const DecoderPass<T>& pass, uint32_t first, uint32_t end) {
  while (first < end && of_unit_[first].empty()) ++first;
  if (group_ == nullptr || first == end) return;
  const Gradient &front = of_unit_[first].front(), &back = of_unit_[end - 1].back();
  const size_t begin = front.small, elements = back.small + small_stride(back.elements) - begin;
  group_->all_gather(pass.stream, acts_.small + begin, acts_.small_of_all, elements * sizeof(Wide<T>));
  for (uint32_t rank = 1; rank < group_->place().size; ++rank) {
    kernels_.enqueue(pass.stream, Add<Wide<T>>{elements, acts_.small_of_all, acts_.small_of_all + rank * elements});
  }
  for (uint32_t unit = first; unit < end; ++unit) {
    for (const Gradient& of : of_unit_[unit]) {
      Wide<T>* to = pass.gradients + of.parameter;
      const Wide<T>* sum = acts_.small_of_all + (of.small - begin);
      if (pass.add) {
        kernels_.enqueue(pass.stream, Add<Wide<T>>{of.elements, to, sum});
      } else {
        pass.stream.copy(to, sum, of.elements * sizeof(Wide<T>));
      }
    }
  }
}

template class SmallGradients<float>;
template class SmallGradients<double>;
template class SmallGradients<BF16>;

}  // namespace pitcrew::trainer
