#include "lib/api/channel.hpp"

#include <algorithm>

namespace pitcrew::api::channel {
namespace {

// Sizes that a peer may send are bounded; what is longer is a broken or hostile peer.
constexpr size_t kMaxTable = 4096;

Json write(const EpochId& id) { return {{"term", id.term.value}, {"number", id.number.value}}; }

void read(ObjectReader& reader, std::string_view key, EpochId& id) {
  if (auto object = reader.object(key)) {
    object->read("term", id.term);
    object->read("number", id.number);
  } else if (!reader.has(key)) {
    reader.problem(key, "is missing");
  }
}

template <typename T>
void put(Json& json, const char* key, const std::optional<T>& value) {
  if (value) json[key] = *value;
}
template <typename Tag, typename T>
void put(Json& json, const char* key, const std::optional<Strong<Tag, T>>& value) {
  if (value) json[key] = value->value;
}
void put(Json& json, const char* key, const std::string& value) {
  if (!value.empty()) json[key] = value;
}

void read_resume(const Json& json, const std::string& path, ResumePoint& resume, Problems& problems) {
  auto parsed = parse_resume_point(json);
  if (parsed) {
    resume = *parsed;
  } else {
    problems.push_back({path, parsed.error().message});
  }
}

const std::vector<std::pair<std::string_view, ExitKind>>& exit_kinds() {
  static const std::vector<std::pair<std::string_view, ExitKind>> kinds{{"exited", ExitKind::kExited},
                                                                        {"signaled", ExitKind::kSignaled},
                                                                        {"oom", ExitKind::kOom},
                                                                        {"start-failed", ExitKind::kStartFailed}};
  return kinds;
}

// ---- launcher to operator ----

Json write(const Hello& m) {
  Json json{{"type", "hello"},      {"major", m.major},        {"minor", m.minor}, {"jobUid", m.job_uid},
            {"pod", m.pod_name},    {"podUid", m.pod_uid},     {"node", m.node},   {"boot", m.boot},
            {"address", m.address}, {"peerPort", m.peer_port}, {"gpus", m.gpus},   {"seen", write(m.seen)},
            {"running", m.running}, {"held", Json::array()}};
  for (const ResumePoint& held : m.held) json["held"].push_back(to_json(held));
  return json;
}

Hello read_hello(ObjectReader& r) {
  Hello m;
  r.read("major", m.major);
  r.read("minor", m.minor);
  r.read("jobUid", m.job_uid);
  r.read("pod", m.pod_name);
  r.read("podUid", m.pod_uid);
  r.read("node", m.node);
  r.read("boot", m.boot);
  r.read("address", m.address);
  r.read("peerPort", m.peer_port);
  r.read("gpus", m.gpus);
  read(r, "seen", m.seen);
  r.read("running", m.running);
  r.each("held", [&](const Json& value, const std::string& path) {
    if (m.held.size() < 64) read_resume(value, path, m.held.emplace_back(), r.problems());
  });
  return m;
}

Json write(const Progress& m) {
  Json json{{"type", "progress"},         {"epoch", write(m.epoch)}, {"step", m.step.value},
            {"samples", m.samples},       {"phase", m.phase},        {"tokensPerSecond", m.tokens_per_second},
            {"totalSteps", m.total_steps}};
  put(json, "loss", m.loss);
  put(json, "durableStep", m.durable_step);
  put(json, "memoryStep", m.memory_step);
  put(json, "resumedStep", m.resumed_step);
  put(json, "resumedSource", m.resumed_source);
  if (m.lost_peer) json["lostPeer"] = true;
  put(json, "lostRank", m.lost_rank);
  return json;
}

Progress read_progress(ObjectReader& r) {
  Progress m;
  read(r, "epoch", m.epoch);
  r.read("step", m.step);
  r.read("samples", m.samples);
  r.read("phase", m.phase);
  r.read("loss", m.loss);
  r.read("tokensPerSecond", m.tokens_per_second);
  r.read("totalSteps", m.total_steps);
  r.read("durableStep", m.durable_step);
  r.read("memoryStep", m.memory_step);
  r.read("resumedStep", m.resumed_step);
  r.read("resumedSource", m.resumed_source);
  r.read("lostPeer", m.lost_peer);
  r.read("lostRank", m.lost_rank);
  return m;
}

Json write(const Exited& m) {
  Json json{{"type", "exited"}, {"epoch", write(m.epoch)}, {"rank", m.rank.value},      {"kind", to_string(m.kind)},
            {"code", m.code},   {"reason", m.reason},      {"lastLines", m.last_lines}, {"step", m.step.value}};
  put(json, "exception", m.exception);
  if (m.done) json["done"] = true;
  return json;
}

Exited read_exited(ObjectReader& r) {
  Exited m;
  read(r, "epoch", m.epoch);
  r.read("rank", m.rank);
  r.read_enum("kind", m.kind, exit_kinds());
  r.read("code", m.code);
  r.read("reason", m.reason);
  r.read("lastLines", m.last_lines);
  r.read("exception", m.exception);
  r.read("step", m.step);
  r.read("done", m.done);
  return m;
}

Json write(const Stalled& m) {
  Json json{{"type", "stalled"},    {"epoch", write(m.epoch)},         {"step", m.step.value},  {"phase", m.phase},
            {"seconds", m.seconds}, {"limitSeconds", m.limit_seconds}, {"ranks", Json::array()}};
  for (const auto& rank : m.ranks) {
    json["ranks"].push_back(
        {{"rank", rank.rank.value}, {"collective", rank.collective}, {"inCollective", rank.in_collective}});
    if (rank.gpu_behind) json["ranks"].back()["gpuBehind"] = *rank.gpu_behind;
  }
  put(json, "stacks", m.stacks);
  return json;
}

Stalled read_stalled(ObjectReader& r) {
  Stalled m;
  read(r, "epoch", m.epoch);
  r.read("step", m.step);
  r.read("phase", m.phase);
  r.read("seconds", m.seconds);
  r.read("limitSeconds", m.limit_seconds);
  r.each("ranks", [&](const Json& value, const std::string& path) {
    ObjectReader suspect(value, path, r.problems());
    auto& rank = m.ranks.emplace_back();
    suspect.read("rank", rank.rank);
    suspect.read("collective", rank.collective);
    suspect.read("inCollective", rank.in_collective);
    bool behind = false;
    if (suspect.read("gpuBehind", behind)) rank.gpu_behind = behind;
  });
  r.read("stacks", m.stacks);
  return m;
}

Json write(const Unreachable& m) {
  return {{"type", "unreachable"}, {"epoch", write(m.epoch)}, {"slot", m.slot.value}, {"seconds", m.seconds}};
}

Unreachable read_unreachable(ObjectReader& r) {
  Unreachable m;
  read(r, "epoch", m.epoch);
  r.read("slot", m.slot);
  r.read("seconds", m.seconds);
  return m;
}

Json write(const Saved& m) {
  Json json{
      {"type", "saved"}, {"epoch", write(m.epoch)}, {"step", m.step.value}, {"durable", m.durable}, {"bytes", m.bytes}};
  put(json, "path", m.path);
  put(json, "request", m.request);
  return json;
}

Saved read_saved(ObjectReader& r) {
  Saved m;
  read(r, "epoch", m.epoch);
  r.read("step", m.step);
  r.read("durable", m.durable);
  r.read("path", m.path);
  r.read("bytes", m.bytes);
  r.read("request", m.request);
  return m;
}

Json write(const Stopped& m) { return {{"type", "stopped"}, {"epoch", write(m.epoch)}, {"clean", m.clean}}; }

Stopped read_stopped(ObjectReader& r) {
  Stopped m;
  read(r, "epoch", m.epoch);
  r.read("clean", m.clean);
  return m;
}

Json write(const Aborted& m) {
  Json json{{"type", "aborted"}, {"epoch", write(m.epoch)}, {"clean", m.clean}};
  put(json, "message", m.message);
  return json;
}

Aborted read_aborted(ObjectReader& r) {
  Aborted m;
  read(r, "epoch", m.epoch);
  r.read("clean", m.clean);
  r.read("message", m.message);
  return m;
}

Json write(const Evidence& m) {
  Json json{{"type", "evidence"},
            {"epoch", write(m.epoch)},
            {"rank", m.rank.value},
            {"kind", m.kind},
            {"message", m.message}};
  put(json, "peer", m.peer);
  put(json, "step", m.step);
  put(json, "digest", m.digest);
  return json;
}

Evidence read_evidence(ObjectReader& r) {
  Evidence m;
  read(r, "epoch", m.epoch);
  r.read("rank", m.rank);
  r.read("kind", m.kind);
  r.read("message", m.message);
  r.read("peer", m.peer);
  r.read("step", m.step);
  r.read("digest", m.digest);
  return m;
}

Json write(const Stacks& m) { return {{"type", "stacks"}, {"request", m.request}, {"text", m.text}}; }

Stacks read_stacks(ObjectReader& r) {
  Stacks m;
  r.read("request", m.request);
  r.read("text", m.text);
  return m;
}

// ---- operator to launcher ----

Json write(const Epoch& m) {
  Json json{{"type", "epoch"},
            {"id", write(m.id)},
            {"job", to_json(m.job)},
            {"worldSize", m.world_size},
            {"masterAddress", m.master_address},
            {"masterPort", m.master_port},
            {"key", m.key},
            {"checkpoint", to_json(m.checkpoint)},
            {"startWithinMs", m.start_within / milliseconds(1)},
            {"slowBelow", m.slow_below}};
  put(json, "slot", m.slot);
  if (m.resume) json["resume"] = to_json(*m.resume);
  put(json, "resumeHint", m.resume_hint);
  if (m.replay) json["replay"] = to_json(*m.replay);
  if (m.stall_after) json["stallAfterMs"] = *m.stall_after / milliseconds(1);
  return json;
}

Epoch read_epoch(ObjectReader& r) {
  Epoch m;
  read(r, "id", m.id);
  if (const Json* job = r.raw("job")) {
    auto parsed = parse_job_identity(job->dump());
    if (parsed) {
      m.job = *parsed;
    } else {
      r.problem("job", parsed.error().message);
    }
  }
  r.read("slot", m.slot);
  r.read("worldSize", m.world_size);
  r.each("table", [&](const Json& value, const std::string& path) {
    if (m.table.size() >= kMaxTable) return;
    ObjectReader row(value, path, r.problems());
    TableEntry entry;
    row.read("slot", entry.slot);
    row.read("pod", entry.pod_name);
    row.read("node", entry.node);
    row.read("address", entry.address);
    row.read("peerPort", entry.peer_port);
    row.read("firstRank", entry.first_rank);
    row.read("ranks", entry.ranks);
    m.table.push_back(std::move(entry));
  });
  r.read("masterAddress", m.master_address);
  r.read("masterPort", m.master_port);
  r.read("key", m.key);
  if (const Json* resume = r.raw("resume")) read_resume(*resume, "resume", m.resume.emplace(), r.problems());
  r.read("resumeHint", m.resume_hint);
  if (const Json* replay = r.raw("replay")) {
    auto parsed = parse_replay_point(*replay);
    if (parsed) {
      m.replay = *std::move(parsed);
    } else {
      r.problem("replay", parsed.error().message);
    }
  }
  if (const Json* checkpoint = r.raw("checkpoint")) {
    auto parsed = parse_checkpoint_settings(checkpoint->dump());
    if (parsed) {
      m.checkpoint = *parsed;
    } else {
      r.problem("checkpoint", parsed.error().message);
    }
  }
  int64_t ms = 0;
  if (r.read("stallAfterMs", ms)) m.stall_after = milliseconds(ms);
  if (r.read("startWithinMs", ms)) m.start_within = milliseconds(ms);
  r.read("slowBelow", m.slow_below);
  return m;
}

Json write(const Stop& m) {
  return {{"type", "stop"},
          {"epoch", write(m.epoch)},
          {"save", m.save},
          {"graceMs", m.grace / milliseconds(1)},
          {"reason", m.reason}};
}

Stop read_stop(ObjectReader& r) {
  Stop m;
  read(r, "epoch", m.epoch);
  r.read("save", m.save);
  int64_t ms = 0;
  if (r.read("graceMs", ms)) m.grace = milliseconds(ms);
  r.read("reason", m.reason);
  return m;
}

Json write(const Save& m) { return {{"type", "save"}, {"epoch", write(m.epoch)}, {"request", m.request}}; }

Save read_save(ObjectReader& r) {
  Save m;
  read(r, "epoch", m.epoch);
  r.read("request", m.request);
  return m;
}

Json write(const Diagnose& m) { return {{"type", "diagnose"}, {"epoch", write(m.epoch)}, {"request", m.request}}; }

Diagnose read_diagnose(ObjectReader& r) {
  Diagnose m;
  read(r, "epoch", m.epoch);
  r.read("request", m.request);
  return m;
}

Json write(const Finish& m) { return {{"type", "finish"}, {"epoch", write(m.epoch)}, {"success", m.success}}; }

Finish read_finish(ObjectReader& r) {
  Finish m;
  read(r, "epoch", m.epoch);
  r.read("success", m.success);
  return m;
}

void append_text(std::string& out, const std::string& text) {
  const bool plain =
      std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c <= '~' && c != '"' && c != '\\'; });
  out += plain ? '"' + text + '"' : Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
}

// Straight into text: a gang of hundreds is told to each of its hundreds of launchers, and a tree of nodes for every
// row of every one of these messages takes seconds.
void append_table(std::string& out, const Table& table) {
  constexpr size_t kRow = 160;
  out.reserve(out.size() + table.size() * kRow);
  out += "\"table\":[";
  const char* separator = "";
  for (const TableEntry& entry : table) {
    out += separator;
    out += "{\"slot\":" + std::to_string(entry.slot.value) + ",\"pod\":";
    append_text(out, entry.pod_name);
    out += ",\"node\":";
    append_text(out, entry.node);
    out += ",\"address\":";
    append_text(out, entry.address);
    out += ",\"peerPort\":" + std::to_string(entry.peer_port) +
           ",\"firstRank\":" + std::to_string(entry.first_rank.value) + ",\"ranks\":" + std::to_string(entry.ranks) +
           '}';
    separator = ",";
  }
  out += ']';
}

template <typename Message>
std::string encode_any(const Message& message) {
  // Output of a training program may hold anything; what isn't UTF-8 is replaced.
  return std::visit([](const auto& m) { return write(m); }, message)
      .dump(-1, ' ', false, Json::error_handler_t::replace);
}

// Parses the envelope and hands the reader to `decode`, which answers whether it knew the type.
template <typename Message, typename Decode>
Result<Message> decode_any(std::string_view text, size_t limit, Decode decode) {
  if (text.size() > limit) {
    return Error(Code::kInvalidArgument, "a channel message of " + std::to_string(text.size()) +
                                             " bytes is longer than " + std::to_string(limit));
  }
  PITCREW_ASSIGN(const Json json, parse_json(text));
  Problems problems;
  ObjectReader reader(json, "", problems);
  std::string type;
  reader.read("type", type);
  std::optional<Message> message = decode(type, reader);
  if (!message) return Error(Code::kUnsupported, "unknown channel message type '" + type + "'");
  if (!problems.empty()) return Error(Code::kInvalidArgument, "channel message '" + type + "': " + join(problems));
  return std::move(*message);
}

}  // namespace

std::string_view to_string(ExitKind kind) {
  for (const auto& [name, value] : exit_kinds()) {
    if (value == kind) return name;
  }
  return "exited";
}

std::string encode(const FromLauncher& message) { return encode_any(message); }
std::string encode(const ToLauncher& message) {
  std::string text = encode_any(message);
  if (const auto* epoch = std::get_if<Epoch>(&message)) {
    text.back() = ',';  // in the place of the object's closing brace
    append_table(text, epoch->table);
    text += '}';
  }
  return text;
}

const Table::Rows& Table::rows() const {
  static const Rows kNone;
  return rows_ ? *rows_ : kNone;
}

Table::Rows& Table::own() {
  if (!rows_) {
    rows_ = std::make_shared<Rows>();
  } else if (rows_.use_count() > 1) {
    rows_ = std::make_shared<Rows>(*rows_);
  }
  return *rows_;
}

Result<FromLauncher> decode_from_launcher(std::string_view text) {
  return decode_any<FromLauncher>(text, kMaxFromLauncher,
                                  [](std::string_view type, ObjectReader& r) -> std::optional<FromLauncher> {
                                    if (type == "hello") return read_hello(r);
                                    if (type == "progress") return read_progress(r);
                                    if (type == "exited") return read_exited(r);
                                    if (type == "stalled") return read_stalled(r);
                                    if (type == "unreachable") return read_unreachable(r);
                                    if (type == "saved") return read_saved(r);
                                    if (type == "stopped") return read_stopped(r);
                                    if (type == "aborted") return read_aborted(r);
                                    if (type == "evidence") return read_evidence(r);
                                    if (type == "stacks") return read_stacks(r);
                                    return std::nullopt;
                                  });
}

Result<ToLauncher> decode_to_launcher(std::string_view text) {
  return decode_any<ToLauncher>(text, kMaxToLauncher,
                                [](std::string_view type, ObjectReader& r) -> std::optional<ToLauncher> {
                                  if (type == "epoch") return read_epoch(r);
                                  if (type == "stop") return read_stop(r);
                                  if (type == "save") return read_save(r);
                                  if (type == "diagnose") return read_diagnose(r);
                                  if (type == "finish") return read_finish(r);
                                  return std::nullopt;
                                });
}

std::string encode(const Config& config) {
  return Json{{"addresses", config.addresses}, {"serverName", config.server_name}, {"caBundle", config.ca_bundle}}
      .dump();
}

Result<Config> decode_config(std::string_view text) {
  PITCREW_ASSIGN(const Json json, parse_json(text));
  Problems problems;
  ObjectReader reader(json, "", problems);
  Config config;
  reader.read("addresses", config.addresses);
  reader.read("serverName", config.server_name);
  reader.read("caBundle", config.ca_bundle);
  if (!problems.empty()) return Error(Code::kInvalidArgument, "channel.json: " + join(problems));
  return config;
}

}  // namespace pitcrew::api::channel
