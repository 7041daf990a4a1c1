#include "trainer/data/sample_order.hpp"

#include "lib/base/digest.hpp"
#include "lib/base/json.hpp"
#include "lib/base/random.hpp"

namespace pitcrew::trainer {
namespace {

constexpr char kVersion[] = "native-v1";

}  // namespace

Result<SampleOrder> SampleOrder::make(Settings settings) {
  if (settings.sequence == 0) return Error(Code::kInvalidArgument, "a sample needs at least one prediction");
  const uint64_t places = settings.tokens == 0 ? 0 : (settings.tokens - 1) / settings.sequence;
  if (places <= settings.held_out) {
    return Error(Code::kInvalidArgument,
                 "the dataset has " + std::to_string(places) + " samples of " + std::to_string(settings.sequence) +
                     " tokens, of which " + std::to_string(settings.held_out) +
                     " are held out: nothing is left to train on; add data, or lower data.heldOut or batch.tokens");
  }
  return SampleOrder(std::move(settings), places);
}

SampleOrder::SampleOrder(Settings settings, uint64_t places)
    : settings_(std::move(settings)),
      training_(places - settings_.held_out),
      split_(places, xxh3("held-out " + settings_.fingerprint)) {}

uint64_t SampleOrder::first_token(uint64_t sample) const {
  const Permutation order(training_, mix64(mix64(settings_.seed) ^ pass_of(sample)));
  return split_(settings_.held_out + order(sample % training_)) * settings_.sequence;
}

uint64_t SampleOrder::first_held_out_token(uint64_t index) const { return split_(index) * settings_.sequence; }

nlohmann::json SampleOrder::state(uint64_t sample) const {
  return {{"version", kVersion},           {"fingerprint", settings_.fingerprint},
          {"seed", settings_.seed},        {"sequence", settings_.sequence},
          {"heldOut", settings_.held_out}, {"sample", sample}};
}

Result<uint64_t> SampleOrder::sample_of(const nlohmann::json& state) const {
  Problems problems;
  ObjectReader reader(state, "data", problems);
  Settings was;
  std::string version;
  uint64_t sample = 0;
  reader.read("version", version);
  if (version != kVersion) {
    return Error(Code::kInvalidArgument, "the checkpoint's sample order is '" + version + "', this program knows " +
                                             kVersion + "; use the version that wrote it");
  }
  reader.read("fingerprint", was.fingerprint);
  reader.read("seed", was.seed);
  reader.read("sequence", was.sequence);
  reader.read("heldOut", was.held_out);
  reader.read("sample", sample);
  if (!problems.empty()) return Error(Code::kInvalidArgument, "the checkpoint's sample order: " + join(problems));
  const auto differs = [](const std::string& what, const auto& then, const auto& now, const char* remedy) {
    std::string message = "the checkpoint was trained with ";
    message += what + " ";
    if constexpr (std::is_arithmetic_v<std::decay_t<decltype(then)>>) {
      message += std::to_string(then) + ", now it is " + std::to_string(now);
    } else {
      message += then + ", now it is " + now;
    }
    return Error(Code::kInvalidArgument, message + "; " + remedy);
  };
  const char* again = "set it back, or start a new run in another folder";
  if (was.fingerprint != settings_.fingerprint) {
    return differs("the dataset of fingerprint", was.fingerprint, settings_.fingerprint,
                   "restore the files, or start a new run in another folder");
  }
  if (was.seed != settings_.seed) return differs("the seed", was.seed, settings_.seed, again);
  if (was.sequence != settings_.sequence) return differs("batch.tokens", was.sequence, settings_.sequence, again);
  if (was.held_out != settings_.held_out) return differs("data.heldOut", was.held_out, settings_.held_out, again);
  return sample;
}

}  // namespace pitcrew::trainer
