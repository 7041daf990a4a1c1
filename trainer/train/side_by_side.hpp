#pragma once

#include <functional>

#include "trainer/train/failure.hpp"

namespace pitcrew::trainer {

// Two parts of a start that don't need each other: `aside` runs in a thread of its own while `here` runs in this one.
// Returns when both have ended: nothing, or the failure that came first; the other's may be its consequence, and is not
// told. Where `here` fails first, `end_aside` is called so that nothing of `aside` blocks for long.
End side_by_side(const std::function<End()>& aside, const std::function<End()>& here,
                 const std::function<void()>& end_aside);

}  // namespace pitcrew::trainer
