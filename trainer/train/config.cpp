#include "trainer/train/config.hpp"

#include <cmath>
#include <filesystem>
#include <numbers>

#include "lib/base/digest.hpp"
#include "trainer/tensor/portable_math.hpp"

namespace pitcrew::trainer {
namespace {

std::string resolve(const std::string& path, const std::string& folder) {
  if (path.empty() || path.starts_with("/") || path.find("://") != std::string::npos) return path;
  return (std::filesystem::path(folder) / path).lexically_normal().string();
}

void resolve_all(std::vector<std::string>& paths, const std::string& folder) {
  for (std::string& path : paths) path = resolve(path, folder);
}

void require_positive(ObjectReader& reader, const char* key, uint64_t value) {
  if (value == 0) reader.problem(key, "must be at least 1");
}

void require_between(ObjectReader& reader, const char* key, double value, double low, double high) {
  if (!(value >= low && value <= high))
    reader.problem(key, "must be between " + Json(low).dump() + " and " + Json(high).dump());
}

void read_model(ObjectReader& root, TrainConfig& config) {
  const Json* json = root.raw("model");
  if (json == nullptr)
    return root.problem("model", "is missing; it says kind, layers, width, heads, vocab and context");
  auto model = model_config_from_json(*json, "model");
  if (model) {
    config.model = *model;
  } else {
    root.problems().push_back({"", model.error().message});
  }
}

void read_batch(ObjectReader& root, TrainConfig& config) {
  config.tokens = config.model.context;
  auto batch = root.object("batch");
  if (!batch) return root.problem("batch", "is missing; it says sequences (per step) and micro (sequences per lane)");
  batch->read("sequences", config.sequences);
  batch->read("micro", config.micro);
  batch->read("passes", config.passes);
  batch->read("tokens", config.tokens);
  require_positive(*batch, "sequences", config.sequences);
  require_positive(*batch, "micro", config.micro);
  require_positive(*batch, "passes", config.passes);
  if (config.micro > 0 && config.sequences % config.micro != 0) {
    batch->problem("micro", std::to_string(config.micro) + " does not divide sequences " +
                                std::to_string(config.sequences) + "; choose a divisor");
  }
  if (config.passes > 1 && config.micro > 0 && config.sequences / config.micro % config.passes != 0) {
    batch->problem("passes", std::to_string(config.passes) + " times micro " + std::to_string(config.micro) +
                                 " does not divide sequences " + std::to_string(config.sequences) +
                                 "; choose a divisor");
  }
  if (config.model.context > 0 && config.tokens > config.model.context) {
    batch->problem("tokens", std::to_string(config.tokens) + " is more than model.context " +
                                 std::to_string(config.model.context) + "; lower it");
  }
  batch->finish();
}

void read_optimizer(ObjectReader& root, TrainConfig& config) {
  auto optimizer = root.object("optimizer");
  if (!optimizer) return;
  optimizer->read("learningRate", config.optimizer.learning_rate);
  optimizer->read("beta1", config.optimizer.beta1);
  optimizer->read("beta2", config.optimizer.beta2);
  optimizer->read("epsilon", config.optimizer.epsilon);
  optimizer->read("weightDecay", config.optimizer.weight_decay);
  optimizer->read("clip", config.clip);
  optimizer->read_enum<std::optional<Masters>>(
      "master", config.master,
      {{"auto", std::nullopt}, {"float", Masters::kFloat}, {"remainder", Masters::kRemainder}});
  require_between(*optimizer, "beta1", config.optimizer.beta1, 0, 0.99999);
  require_between(*optimizer, "beta2", config.optimizer.beta2, 0, 0.99999999);
  if (!(config.optimizer.learning_rate > 0)) optimizer->problem("learningRate", "must be above 0");
  if (!(config.optimizer.epsilon > 0)) optimizer->problem("epsilon", "must be above 0");
  if (!(config.optimizer.weight_decay >= 0)) optimizer->problem("weightDecay", "must not be negative");
  if (!(config.clip >= 0)) optimizer->problem("clip", "must not be negative; 0 turns clipping off");
  optimizer->finish();
}

void read_schedule(ObjectReader& root, TrainConfig& config) {
  auto schedule = root.object("schedule");
  if (!schedule) return;
  schedule->read("warmup", config.warmup);
  schedule->read("decayTo", config.decay_to);
  require_between(*schedule, "decayTo", config.decay_to, 0, 1);
  if (config.steps > 0 && config.warmup >= config.steps)
    schedule->problem("warmup", "must be below steps " + std::to_string(config.steps));
  schedule->finish();
}

void read_data(ObjectReader& root, const std::string& folder, TrainConfig& config) {
  auto data = root.object("data");
  if (!data) return root.problem("data", "is missing; it has text: {paths: […]} or bin: {paths: […]}");
  if (auto text = data->object("text")) {
    TextSettings settings;
    text->read("paths", settings.paths);
    text->read("include", settings.include);
    text->read("exclude", settings.exclude);
    text->read("maxFileBytes", settings.max_file_bytes);
    if (settings.paths.empty()) text->problem("paths", "must name at least one file or folder");
    resolve_all(settings.paths, folder);
    if (config.model.vocab != 0 && config.model.tokens() < 256) {
      root.problem("model.vocab", "must be at least 256: text is read as bytes");
    }
    text->finish();
    config.text = std::move(settings);
  }
  if (auto bin = data->object("bin")) {
    bin->read("paths", config.bin);
    if (config.bin.empty()) bin->problem("paths", "must name at least one file or folder");
    resolve_all(config.bin, folder);
    bin->finish();
  }
  if (config.text.has_value() != config.bin.empty()) root.problem("data", "must have either text or bin");
  data->read("heldOut", config.held_out);
  if (config.micro > 0 && config.held_out % config.micro != 0) {
    data->problem("heldOut", std::to_string(config.held_out) + " is not a multiple of batch.micro " +
                                 std::to_string(config.micro) + "; make it one");
  }
  data->finish();
}

void read_recompute(ObjectReader& root, TrainConfig& config) {
  std::vector<std::string> parts;
  root.read("recompute", parts);
  for (const std::string& part : parts) {
    if (part == "norms") {
      config.recompute.norms = true;
    } else if (part == "activation") {
      config.recompute.activation = true;
    } else if (part == "block") {
      config.recompute.block = true;
    } else {
      root.problem("recompute", "'" + part + "' is no part; it lists norms, activation or block");
    }
  }
}

void read_parallel(ObjectReader& root, TrainConfig& config) {
  auto parallel = root.object("parallel");
  if (!parallel) return;
  GridSettings& grid = config.parallel;
  parallel->read("shards", grid.shards);
  parallel->read("tensor", grid.tensor);
  require_positive(*parallel, "shards", grid.shards);
  require_positive(*parallel, "tensor", grid.tensor);
  const Json* replicas = parallel->raw("replicas");
  if (replicas != nullptr && *replicas != "auto") {
    if (replicas->is_number_unsigned() && replicas->get<uint64_t>() - 1 < UINT32_MAX) {
      grid.replicas = replicas->get<uint32_t>();
    } else {
      parallel->problem("replicas", "must be auto, or a number of at least 1");
    }
  }
  parallel->finish();
}

void read_checkpoint(ObjectReader& root, const std::string& folder, TrainConfig& config) {
  auto checkpoint = root.object("checkpoint");
  if (!checkpoint) return;
  CheckpointSettings& settings = config.checkpoint;
  checkpoint->read("path", settings.path);
  settings.path = resolve(settings.path, folder);
  checkpoint->read("keep", settings.keep);
  require_positive(*checkpoint, "keep", settings.keep);
  checkpoint->read("bounce", config.bounce);
  require_between(*checkpoint, "bounce", config.bounce, 0, 1);
  if (auto every = checkpoint->object("every")) {
    every->read("steps", settings.every_steps);
    every->read("time", settings.every_time);
    every->read("auto", settings.every_auto);
    if (int{settings.every_steps.has_value()} + int{settings.every_time.has_value()} + int{settings.every_auto} != 1)
      checkpoint->problem("every", "must have one of steps, time and auto: true");
    if (settings.every_steps == 0u) every->problem("steps", "must be at least 1");
    every->finish();
  }
  if (auto memory = checkpoint->object("memory")) {
    if (auto every = memory->object("every")) {
      every->read("steps", settings.memory_steps);
      if (settings.memory_steps == 0u) every->problem("steps", "must be at least 1");
      every->finish();
    }
    memory->read("copies", settings.memory_copies);
    memory->finish();
  }
  checkpoint->finish();
}

void read_health(ObjectReader& root, TrainConfig& config) {
  auto health = root.object("health");
  if (!health) return;
  const auto factor = [](ObjectReader& reader, const char* key, double& value) {
    reader.read(key, value);
    if (!(value == 0 || value > 1)) reader.problem(key, "must be above 1, or 0 to turn it off");
  };
  if (auto spike = health->object("spike")) {
    factor(*spike, "loss", config.spike.loss);
    factor(*spike, "norm", config.spike.norm);
    spike->finish();
  }
  health->read("compareEvery", config.compare_every);
  health->finish();
}

}  // namespace

std::optional<TrainConfig> read_train_config(const Json& json, const std::string& folder, Problems& problems) {
  TrainConfig config;
  ObjectReader root(json, "", problems);
  read_model(root, config);
  root.read("steps", config.steps);
  if (config.steps == 0) root.problem("steps", "must be at least 1");
  root.read("seed", config.seed);
  read_batch(root, config);
  read_optimizer(root, config);
  read_schedule(root, config);
  read_data(root, folder, config);
  read_checkpoint(root, folder, config);
  read_parallel(root, config);
  if (config.passes > 1 && config.parallel.shards > 1)
    root.problem("batch.passes", "is not for parallel.shards: a shard adds what arrives by lanes; set it to 1");
  if (auto evaluation = root.object("evaluation")) {
    evaluation->read("every", config.evaluate_every);
    if (config.evaluate_every > 0 && config.held_out == 0) {
      evaluation->problem("every", "needs samples to evaluate: set data.heldOut");
    }
    evaluation->finish();
  }
  read_recompute(root, config);
  root.read_enum("device", config.device,
                 {{"auto", TrainDevice::kAuto}, {"cpu", TrainDevice::kCpu}, {"cuda", TrainDevice::kCuda}});
  root.read_enum<std::optional<AttentionEngine>>(
      "attention", config.attention,
      {{"auto", std::nullopt}, {"cudnn", AttentionEngine::kCudnn}, {"own", AttentionEngine::kOwn}});
  if (config.attention == AttentionEngine::kCudnn && config.device == TrainDevice::kCpu)
    root.problem("attention", "cudnn needs a GPU, but device is cpu; set it to auto");
  root.read("peakTflops", config.peak_tflops);
  if (config.peak_tflops < 0) root.problem("peakTflops", "must be above 0, or 0 for the GPU's own");
  if (auto init = root.object("init")) {
    init->read("from", config.init_from);
    config.init_from = resolve(config.init_from, folder);
    init->finish();
  }
  read_health(root, config);
  root.read("threads", config.threads);
  require_positive(root, "threads", config.threads);
  if (auto log = root.object("log")) {
    log->read("every", config.log_every);
    require_positive(*log, "every", config.log_every);
    log->read_enum("format", config.log_format, {{"plain", LogFormat::kPlain}, {"json", LogFormat::kJson}});
    log->finish();
  }
  if (auto comm = root.object("comm")) {
    comm->read_enum("backend", config.backend,
                    {{"auto", CommBackend::kAuto}, {"tcp", CommBackend::kTcp}, {"nccl", CommBackend::kNccl}});
    comm->read_enum("reduce", config.reduce, {{"ordered", CommReduce::kOrdered}, {"nccl", CommReduce::kNccl}});
    if (config.reduce == CommReduce::kNccl && config.backend == CommBackend::kTcp)
      comm->problem("reduce", "lets NCCL add, but comm.backend is tcp: set it to nccl, or reduce to ordered");
    comm->read("connectWithin", config.connect_timeout);
    comm->read("timeout", config.collective_timeout);
    comm->read("lostPeerWait", config.lost_peer_wait);
    comm->finish();
  }
  root.finish();
  if (!problems.empty()) return std::nullopt;
  return config;
}

Json canonical(const TrainConfig& config) {
  Json json = {{"model", to_json(config.model)},
               {"batch", {{"sequences", config.sequences}, {"micro", config.micro}, {"tokens", config.tokens}}},
               {"steps", config.steps},
               {"seed", config.seed},
               {"optimizer",
                {{"learningRate", config.optimizer.learning_rate},
                 {"beta1", config.optimizer.beta1},
                 {"beta2", config.optimizer.beta2},
                 {"epsilon", config.optimizer.epsilon},
                 {"weightDecay", config.optimizer.weight_decay},
                 {"clip", config.clip}}},
               {"schedule", {{"warmup", config.warmup}, {"decayTo", config.decay_to}}},
               {"data", {{"kind", config.text ? "text" : "bin"}, {"heldOut", config.held_out}}}};
  // Another order of additions; absent where there is one, so that fingerprints of older runs stay.
  if (config.passes > 1) json["batch"]["passes"] = config.passes;
  if (!config.init_from.empty()) json["init"] = "imported";
  return json;
}

std::string run_hash(const TrainConfig& config) { return hex64(xxh3(canonical(config).dump())); }

double learning_rate(const TrainConfig& config, uint64_t step) {
  const double top = config.optimizer.learning_rate;
  if (step <= config.warmup) return top * static_cast<double>(step) / static_cast<double>(config.warmup);
  const uint64_t span = config.steps - config.warmup;
  const double along =
      span == 0 ? 1 : static_cast<double>(std::min(step, config.steps) - config.warmup) / static_cast<double>(span);
  const double half_cosine = 0.5 * (1 + portable_sincos(std::numbers::pi * along).cosine);
  return top * (config.decay_to + (1 - config.decay_to) * half_cosine);
}

}  // namespace pitcrew::trainer
