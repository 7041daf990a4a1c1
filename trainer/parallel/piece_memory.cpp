#include "trainer/parallel/piece_memory.hpp"

#include <algorithm>
#include <cstring>

namespace pitcrew::trainer {

Status HostPieces::reserve(size_t pieces, size_t elements) {
  pieces_.resize(std::max(pieces_.size(), pieces));
  for (std::vector<float>& piece : pieces_) {
    if (piece.size() < elements) piece.resize(elements);
  }
  return {};
}

void HostPieces::copy(float* to, const float* from, size_t count) {
  if (count > 0) std::memcpy(to, from, count * sizeof(float));
}

void HostPieces::add(float* into, const float* from, size_t count) {
  for (size_t i = 0; i < count; ++i) into[i] += from[i];
}

void HostPieces::zero(float* data, size_t count) { std::fill_n(data, count, 0.0f); }

}  // namespace pitcrew::trainer
