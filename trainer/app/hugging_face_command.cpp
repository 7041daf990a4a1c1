#include <cstdio>
#include <filesystem>

#include "lib/base/environment.hpp"
#include "lib/base/file.hpp"
#include "trainer/app/commands.hpp"
#include "trainer/app/trained_model.hpp"
#include "trainer/train/hugging_face.hpp"

namespace pitcrew::trainer {
namespace {

int answer(const char* command, const Status& done) {
  if (done) return exit_code::kDone;
  std::fprintf(stderr, "pitcrew-train %s: %s\n", command, done.error().message.c_str());
  return done.error().code == Code::kDataLoss ? exit_code::kBadData : exit_code::kBadConfiguration;
}

Status print_import(const std::string& folder) {
  PITCREW_ASSIGN(const ModelConfig model, hugging_face::read_config(posix_file_system(), folder));
  // JSON is YAML.
  std::printf("# %llu parameters\nmodel: %s\ninit: {from: %s}\n", static_cast<unsigned long long>(model.parameters()),
              to_json(model).dump().c_str(), Json(std::filesystem::absolute(folder).string()).dump().c_str());
  return {};
}

Status write_export(const std::string& checkpoint, const std::string& folder, const std::string& dtype) {
  PITCREW_ASSIGN(const TrainedModel trained, load_trained_model(checkpoint));
  return hugging_face::write_model(posix_file_system(), folder, trained.config, parameter_layout<float>(trained.config),
                                   trained.params, dtype == "bf16" ? DType::kBF16 : DType::kF32);
}

}  // namespace

int run_import(const std::string& folder) { return answer("import", print_import(folder)); }

int run_export(const std::string& checkpoint, const std::string& folder, const std::string& dtype) {
  return answer("export", write_export(checkpoint, folder, dtype));
}

}  // namespace pitcrew::trainer
