#pragma once

namespace pitcrew {

// One function object out of several lambdas, for std::visit.
template <typename... F>
struct Overloaded : F... {
  using F::operator()...;
};
template <typename... F>
Overloaded(F...) -> Overloaded<F...>;  // clang 16 deduces no aggregates

}  // namespace pitcrew
