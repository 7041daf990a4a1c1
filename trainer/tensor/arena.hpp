#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/result.hpp"
#include "trainer/device/device.hpp"
#include "trainer/tensor/state.hpp"

namespace pitcrew::trainer {

// A named tensor inside an arena.
struct Slice {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<uint64_t> shape;
  uint64_t offset = 0;  // bytes from the arena's start, a multiple of 64
  uint64_t elements = 0;
  uint64_t bytes() const { return elements * size_of(dtype); }
};

// What an arena will hold: known before anything is allocated.
class ArenaLayout {
 public:
  // The new slice's index. A name may come once.
  size_t add(std::string name, DType dtype, std::vector<uint64_t> shape);

  const std::vector<Slice>& slices() const { return slices_; }
  const Slice& operator[](size_t index) const { return slices_[index]; }
  // Null where there is none of that name.
  const Slice* find(std::string_view name) const;
  // The arena's size; slices are padded to 64 bytes, and the padding holds zeros for ever.
  uint64_t bytes() const { return bytes_; }

 private:
  std::vector<Slice> slices_;
  std::map<std::string, size_t, std::less<>> by_name_;
  uint64_t bytes_ = 0;
};

// One allocation that holds all tensors of a class: parameters, gradients, first moments, second moments or
// activations.
class Arena {
 public:
  Arena() = default;
  // Zeroed.
  static Result<Arena> create(Device& device, std::string_view name, ArenaLayout layout);

  const ArenaLayout& layout() const { return layout_; }
  std::byte* data() const { return buffer_.data(); }
  uint64_t bytes() const { return layout_.bytes(); }
  template <typename T>
  T* as() const {
    return buffer_.as<T>();
  }
  template <typename T>
  T* at(size_t index) const {
    return reinterpret_cast<T*>(buffer_.data() + layout_[index].offset);
  }

 private:
  ArenaLayout layout_;
  Buffer buffer_;
};

}  // namespace pitcrew::trainer
