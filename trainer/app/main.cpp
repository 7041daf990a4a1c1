#include <cstdio>

#include <CLI/CLI.hpp>

#include "lib/base/environment.hpp"
#include "lib/base/version.hpp"
#include "trainer/app/commands.hpp"

int main(int argc, char** argv) {
  using namespace pitcrew;
  CLI::App app{
      "Trains GPT-2 and Llama models. Runs alone, under torchrun's variables (RANK, WORLD_SIZE, MASTER_ADDR, "
      "MASTER_PORT …), or under "
      "Pitcrew.\nExit codes: 0 done or stopped after a save, 64 bad configuration, 65 bad data, 75 try again, 76 "
      "replace this node.",
      "pitcrew-train"};
  app.set_version_flag("--version", "pitcrew-train " + version());
  std::string config;
  std::vector<std::string> sets;
  const auto takes_config = [&](CLI::App& command) {
    command.add_option("config", config, "the run's YAML file (docs/trainer.md)");
    command.add_option("--set", sets, "a value put over the file's: batch.micro=2")->take_all()->expected(1);
  };
  takes_config(app);

  auto* sample = app.add_subcommand("sample", "generate from a checkpoint");
  trainer::SampleOptions options;
  sample->add_option("checkpoint", options.checkpoint, "a checkpoint's folder, or the folder of checkpoints")
      ->required();
  sample->add_option("--prompt", options.prompt, "what comes first: text, or token numbers with commas")->required();
  sample->add_option("--tokens", options.tokens, "how many to generate")->capture_default_str();
  sample->add_option("--temperature", options.temperature, "0: always the likeliest")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  sample->add_option("--seed", options.seed, "of the choice")->capture_default_str();
  sample->add_option("--threads", options.threads, "to compute with")
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));

  std::string from, to, dtype = "f32";
  auto* import = app.add_subcommand("import", "print the model section for a folder of Hugging Face transformers");
  import->add_option("folder", from, "with config.json and safetensors")->required();
  auto* export_ = app.add_subcommand("export", "write a checkpoint as Hugging Face transformers reads it");
  export_->add_option("checkpoint", from, "a checkpoint's folder, or the folder of checkpoints")->required();
  export_->add_option("folder", to, "to write to")->required();
  export_->add_option("--dtype", dtype, "f32 or bf16")->capture_default_str()->check(CLI::IsMember({"f32", "bf16"}));

  auto* plan = app.add_subcommand("plan", "print parameters, memory and work of a configuration");
  trainer::PlanOptions plan_options;
  takes_config(*plan);
  plan->add_option("--grid,--ranks", plan_options.grid, "replicas, replicas x shards, or with tensor: 8, 8x8, 4x4x2")
      ->capture_default_str();
  plan->add_flag("--gpu", plan_options.gpu, "as on GPUs: BF16 with float masters; needs none");
  plan->add_option("--memory", plan_options.memory_gb, "GB of a GPU: says whether it fits, and what helps if not")
      ->check(CLI::PositiveNumber);

  auto* checkpoints = app.add_subcommand("checkpoints", "say what a folder of checkpoints holds, as JSON");
  trainer::CheckpointsOptions look;
  checkpoints->add_option("path", look.path, "the folder of checkpoints")->required();
  checkpoints->add_option("--name", look.name, "one of them: step-000000000500-c7");
  checkpoints->add_flag("--verify", look.verify, "read every byte, of one (default: the newest)");

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? exit_code::kDone : exit_code::kBadConfiguration;
  }
  if (sample->parsed()) return trainer::run_sample(options);
  if (checkpoints->parsed()) return trainer::run_checkpoints(look);
  if (import->parsed()) return trainer::run_import(from);
  if (export_->parsed()) return trainer::run_export(from, to, dtype);
  if (config.empty()) {
    std::fprintf(stderr, "pitcrew-train: which configuration? Give the run's YAML file; --help says more\n");
    return exit_code::kBadConfiguration;
  }
  if (plan->parsed()) {
    plan_options.config = config;
    plan_options.sets = sets;
    return trainer::run_plan(plan_options);
  }
  return trainer::run_train(config, sets);
}
