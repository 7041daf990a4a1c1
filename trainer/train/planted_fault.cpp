#include "trainer/train/planted_fault.hpp"

#include <bit>
#include <cmath>

#include "lib/base/json.hpp"

namespace pitcrew::trainer {
namespace {

constexpr char kVariable[] = "PITCREW_TEST_FAULT";
constexpr float kTooSmall = 1e-8f;

// The first element that the bit makes larger: a flip in nothing would change nothing.
void flip(std::span<float> values, uint32_t bit) {
  for (float& value : values) {
    const auto bits = std::bit_cast<uint32_t>(value);
    if (std::abs(value) < kTooSmall || (bits & (1u << bit)) != 0) continue;
    value = std::bit_cast<float>(bits ^ (1u << bit));
    return;
  }
}

}  // namespace

Result<std::optional<PlantedFault>> PlantedFault::read(const std::function<const char*(const char*)>& get,
                                                       uint32_t rank) {
  const char* text = get(kVariable);
  if (text == nullptr || *text == '\0') return std::optional<PlantedFault>();
  auto json = parse_json(text);
  if (!json) return Error(Code::kInvalidArgument, std::string(kVariable) + ": " + json.error().message);
  Problems problems;
  ObjectReader reader(*json, "", problems);
  PlantedFault fault;
  std::string node, what;
  uint64_t number = 0;
  if (reader.read("node", node)) {
    const char* own = get("PITCREW_NODE_NAME");
    fault.here_ = own != nullptr && node == own;
  }
  if (reader.read("rank", number)) fault.here_ = number == rank;
  if (reader.read("step", number)) fault.step_ = Step(number);
  if (reader.read("sample", number)) fault.sample_ = number;
  if (reader.read("what", what)) fault.weight_ = what == "weight";
  if (fault.weight_) fault.times_ = 1;
  reader.read("times", fault.times_);
  if (reader.read("bit", number)) fault.bit_ = static_cast<uint32_t>(number & 31);
  if (!fault.step_ && !fault.sample_) reader.problem("step", "is missing, and sample too");
  reader.finish();
  if (!problems.empty()) return Error(Code::kInvalidArgument, std::string(kVariable) + ": " + join(problems));
  return std::optional<PlantedFault>(fault);
}

void PlantedFault::begin(Step step, uint64_t first_sample, uint32_t micro, uint32_t stride) {
  now_ = step;
  first_sample_ = first_sample;
  micro_ = micro;
  stride_ = stride;
}

void PlantedFault::after_lane(uint32_t lane, std::span<float> gradient) {
  if (!here_ || weight_ || times_ == 0) return;
  if (step_ && (*step_ != now_ || lane != 0)) return;
  const uint64_t first = first_sample_ + uint64_t{lane} * stride_ * micro_;
  if (sample_ && (*sample_ < first || *sample_ >= first + micro_)) return;
  --times_;
  flip(gradient, bit_);
}

void PlantedFault::after_update(Step step, const std::vector<StateTensor>& tensors) {
  if (!here_ || !weight_ || times_ == 0 || step_ != step || tensors.empty()) return;
  --times_;
  const StateTensor& tensor = tensors.front();
  flip(std::span(reinterpret_cast<float*>(tensor.data), tensor.held()), bit_);
}

}  // namespace pitcrew::trainer
