#include "trainer/train/nonfinite.hpp"

#include "lib/base/json.hpp"
#include "trainer/checkpoint/storage.hpp"

namespace pitcrew::trainer {

Result<bool> note_nonfinite(FileSystem& files, const std::string& folder, const NonfiniteStep& step) {
  if (folder.empty()) return false;
  const std::string name = "nonfinite.json";
  PITCREW_ASSIGN(const auto storage, open_storage(files, folder));
  const Json json{{"step", step.step.value}, {"loss", step.loss_bits}, {"gradient", step.gradient_bits}};
  if (const auto text = storage->read(name, 1 << 16)) {
    const auto before = parse_json(*text);
    if (before && *before == json) return true;
  }
  PITCREW_TRY(storage->replace(name, json.dump() + "\n"));
  return false;
}

}  // namespace pitcrew::trainer
