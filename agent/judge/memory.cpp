#include <algorithm>

#include "agent/judge/history.hpp"
#include "lib/base/json.hpp"

namespace pitcrew::agent {
namespace {

constexpr size_t kMaxRemembered = 64 * 1024;
constexpr char kForm[] = "judge-v1";

Json to_json(const Observation& observation) {
  Json values = Json::object();
  for (const auto& [name, value] : observation.values) {
    std::visit([&](const auto& v) { values[name] = v; }, value);
  }
  Json json{{"kind", observation.kind}, {"device", observation.device}, {"values", values},
            {"text", observation.text}, {"id", observation.id},         {"time", to_rfc3339(observation.time, 9)}};
  if (observation.code) json["code"] = *observation.code;
  return json;
}

void read_observation(ObjectReader& reader, Observation& out) {
  reader.read("kind", out.kind);
  reader.read("code", out.code);
  reader.read("device", out.device);
  reader.read("text", out.text);
  reader.read("id", out.id);
  reader.read("time", out.time);
  if (const Json* values = reader.raw("values"); values != nullptr && values->is_object()) {
    for (const auto& [name, value] : values->items()) {
      if (value.is_number()) out.values[name] = value.get<double>();
      if (value.is_string()) out.values[name] = value.get<std::string>();
    }
  }
}

Json write(const History& history, size_t sightings, size_t ids) {
  Json json{{"form", kForm}, {"boot", history.boot_id}};
  for (const History::Open& open : history.open) {
    const Verdict& v = open.verdict;
    json["open"].push_back({{"rule", v.rule},
                            {"device", v.device},
                            {"message", v.message},
                            {"since", to_rfc3339(v.since, 9)},
                            {"last", to_rfc3339(v.last, 9)},
                            {"count", v.count},
                            {"severity", static_cast<int>(v.severity)},
                            {"action", static_cast<int>(v.action)},
                            {"certain", v.certain},
                            {"kind", open.kind},
                            {"reading", open.reading},
                            {"good", open.good}});
  }
  const size_t first = history.sightings.size() - std::min(sightings, history.sightings.size());
  for (size_t i = first; i < history.sightings.size(); ++i) {
    const History::Sighting& one = history.sightings[i];
    json["sightings"].push_back(
        {{"rule", one.rule}, {"device", one.device}, {"same", one.same}, {"time", to_rfc3339(one.time, 9)}});
  }
  for (const History::Waiting& waiting : history.waiting) {
    json["waiting"].push_back({{"rule", waiting.rule}, {"event", to_json(waiting.event)}});
  }
  for (const History::Event& event : history.events) {
    json["events"].push_back(
        {{"kind", event.kind}, {"code", event.code}, {"device", event.device}, {"time", to_rfc3339(event.time, 9)}});
  }
  const size_t first_id = history.ids.size() - std::min(ids, history.ids.size());
  for (size_t i = first_id; i < history.ids.size(); ++i) json["ids"].push_back(history.ids[i]);
  return json;
}

void read_open(ObjectReader& reader, History::Open& out) {
  Verdict& v = out.verdict;
  int severity = 0, action = 0;
  reader.read("rule", v.rule);
  reader.read("device", v.device);
  reader.read("message", v.message);
  reader.read("since", v.since);
  reader.read("last", v.last);
  reader.read("count", v.count);
  reader.read("certain", v.certain);
  if (reader.read("severity", severity)) v.severity = static_cast<api::HealthSeverity>(std::clamp(severity, 0, 2));
  if (reader.read("action", action)) v.action = static_cast<api::HealthAction>(std::clamp(action, 0, 4));
  reader.read("kind", out.kind);
  reader.read("reading", out.reading);
  reader.read("good", out.good);
}

template <typename T, typename Read>
void read_list(ObjectReader& reader, std::string_view key, size_t limit, T& out, Read read) {
  reader.each(key, [&](const Json& json, const std::string& path) {
    if (out.size() >= limit) return;
    ObjectReader element(json, path, reader.problems());
    read(element, out.emplace_back());
  });
}

}  // namespace

std::string remember(const History& history) {
  size_t sightings = History::kMaxSightings, ids = History::kMaxIds;
  std::string text = write(history, sightings, ids).dump(-1, ' ', false, Json::error_handler_t::replace);
  while (text.size() > kMaxRemembered && (sightings > 0 || ids > 0)) {
    sightings /= 2;
    ids /= 2;
    text = write(history, sightings, ids).dump(-1, ' ', false, Json::error_handler_t::replace);
  }
  return text;
}

Result<History> recall(std::string_view memory) {
  History history;
  if (memory.empty()) return history;
  PITCREW_ASSIGN(const Json json, parse_json(memory));
  Problems problems;
  ObjectReader reader(json, "", problems);
  std::string form;
  if (!reader.read("form", form) || form != kForm) {
    return Error(Code::kUnsupported,
                 "the agent's memory is of form '" + form + "', not " + kForm + "; judgement begins without history");
  }
  reader.read("boot", history.boot_id);
  read_list(reader, "open", 256, history.open, read_open);
  read_list(reader, "sightings", History::kMaxSightings, history.sightings, [](ObjectReader& r, auto& one) {
    r.read("rule", one.rule);
    r.read("device", one.device);
    r.read("same", one.same);
    r.read("time", one.time);
  });
  read_list(reader, "waiting", History::kMaxWaiting, history.waiting, [](ObjectReader& r, auto& one) {
    r.read("rule", one.rule);
    if (auto event = r.object("event")) read_observation(*event, one.event);
  });
  read_list(reader, "events", History::kMaxEvents, history.events, [](ObjectReader& r, auto& one) {
    r.read("kind", one.kind);
    r.read("code", one.code);
    r.read("device", one.device);
    r.read("time", one.time);
  });
  std::vector<std::string> ids;
  reader.read("ids", ids);
  history.ids.assign(ids.begin(), ids.end());
  // A waiting match is about an XID; without its code nothing can be said about its company.
  std::erase_if(history.waiting, [](const History::Waiting& waiting) { return !waiting.event.code; });
  if (!problems.empty()) return Error(Code::kInvalidArgument, "the agent's memory: " + join(problems));
  return history;
}

}  // namespace pitcrew::agent
