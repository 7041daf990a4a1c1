#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "lib/base/result.hpp"
#include "trainer/kernels/attention_engine.hpp"

namespace pitcrew::trainer {

struct AttentionChoice {
  AttentionEngine engine = AttentionEngine::kOwn;
  std::string line;  // for people; empty: nothing to say
};

// What all ranks compute attention by, so that they get the same bits: cuDNN where every rank can use it in the same
// version. `versions`: by rank, cuDNN's where it is ready there, else 0; `why_not`: of this rank, where it can't.
// kUnsupported where cuDNN was asked for.
Result<AttentionChoice> choose_together(std::optional<AttentionEngine> asked, std::span<const uint64_t> versions,
                                        const std::string& why_not);

}  // namespace pitcrew::trainer
