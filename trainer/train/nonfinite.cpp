#include "trainer/train/nonfinite.hpp"

#include "lib/base/json.hpp"

namespace pitcrew::trainer {

Result<bool> note_nonfinite(FileSystem& files, const std::string& folder, const NonfiniteStep& step) {
  if (folder.empty()) return false;
  const std::string path = join_path(folder, "nonfinite.json");
  const Json json{{"step", step.step.value}, {"loss", step.loss_bits}, {"gradient", step.gradient_bits}};
  if (const auto text = read_file(files, path, 1 << 16)) {
    const auto before = parse_json(*text);
    if (before && *before == json) return true;
  }
  PITCREW_TRY(make_folders(files, folder));
  PITCREW_TRY(replace_file(files, path, json.dump() + "\n"));
  return false;
}

}  // namespace pitcrew::trainer
