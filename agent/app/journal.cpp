#include "agent/app/journal.hpp"

namespace pitcrew::agent {
namespace {

constexpr char kForm[] = "agent-v1";
constexpr char kFile[] = "agent.json";
constexpr uint64_t kMaxBytes = 4 << 20;

}  // namespace

std::string to_text(const Journal& journal) {
  // As a NodeHealth, whose form is checked and kept anyway.
  api::NodeHealth health;
  health.metadata.name = "journal";
  health.spec.node_uid = "journal";
  health.status.boot_id = journal.health.boot_id;
  health.status.gpus = journal.health.gpus;
  health.status.history = journal.health.history;
  health.status.memory = journal.health.memory;
  Json json{{"form", kForm},
            {"booted", to_rfc3339(journal.booted, 9)},
            {"cleared", journal.cleared},
            {"health", health.encode()}};
  if (journal.position) json["position"] = to_string(*journal.position);
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

Result<Journal> parse_journal(std::string_view text) {
  PITCREW_ASSIGN(const Json json, parse_json(text));
  Problems problems;
  ObjectReader reader(json, "", problems);
  std::string form, position;
  Journal journal;
  if (!reader.read("form", form) || form != kForm) {
    return Error(Code::kUnsupported, "is of form '" + form + "', not " + kForm);
  }
  reader.read("booted", journal.booted);
  reader.read("cleared", journal.cleared);
  if (reader.read("position", position)) {
    PITCREW_ASSIGN(journal.position, kernel_log::parse_position(position));
  }
  if (const Json* health = reader.raw("health")) journal.health = api::decode_node_health(*health, problems).status;
  if (!problems.empty()) return Error(Code::kDataLoss, join(problems));
  return journal;
}

Result<std::optional<Journal>> read_journal(FileSystem& files, const std::string& folder) {
  if (folder.empty()) return std::optional<Journal>();
  const std::string path = join_path(folder, kFile);
  const auto text = read_file(files, path, kMaxBytes);
  if (!text && text.error().code == Code::kNotFound) return std::optional<Journal>();
  const auto journal = text ? parse_journal(*text) : text.error();
  if (!journal) {
    return journal.error().with_context("the journal " + path +
                                        " (history is taken from NodeHealth, and the kernel log is read again)");
  }
  return std::optional<Journal>(*journal);
}

Status write_journal(FileSystem& files, const std::string& folder, const Journal& journal) {
  if (folder.empty()) return {};
  PITCREW_TRY(make_folders(files, folder));
  return replace_file(files, join_path(folder, kFile), to_text(journal));
}

}  // namespace pitcrew::agent
