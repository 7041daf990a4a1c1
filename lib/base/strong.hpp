#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <ostream>

namespace pitcrew {

// A number that means one thing: a Step does not convert to a Rank.
template <typename Tag, typename T>
struct Strong {
  using Value = T;
  T value{};

  constexpr Strong() = default;
  constexpr explicit Strong(T v) : value(v) {}
  constexpr auto operator<=>(const Strong&) const = default;
  constexpr Strong next() const { return Strong(value + 1); }
  friend std::ostream& operator<<(std::ostream& out, Strong s) { return out << +s.value; }
};

using Step = Strong<struct StepTag, uint64_t>;          // optimizer steps done
using Rank = Strong<struct RankTag, uint32_t>;          // of a process, 0 .. world size - 1
using Slot = Strong<struct SlotTag, uint32_t>;          // of a replica, 0 .. replicas - 1
using Serial = Strong<struct SerialTag, uint32_t>;      // of a pod, counted over the job's life
using Term = Strong<struct TermTag, uint64_t>;          // of a leader
using EpochNumber = Strong<struct EpochTag, uint64_t>;  // of a (re)start of the job
using Bytes = Strong<struct BytesTag, uint64_t>;

// What orders everything that leaders and launchers say: by term, then by number.
struct EpochId {
  Term term;
  EpochNumber number;
  constexpr auto operator<=>(const EpochId&) const = default;
};

}  // namespace pitcrew

template <typename Tag, typename T>
struct std::hash<pitcrew::Strong<Tag, T>> {
  size_t operator()(pitcrew::Strong<Tag, T> s) const noexcept { return std::hash<T>()(s.value); }
};
