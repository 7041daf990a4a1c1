#include "lib/base/launcher_socket.hpp"

#include "lib/base/overloaded.hpp"

namespace pitcrew::launcher_socket {
namespace {

Json write(const Request& request) {
  return std::visit(
      Overloaded{
          [](const Push& push) {
            return Json{{"op", "push"}, {"checkpoint", push.checkpoint}, {"files", push.files}};
          },
          [](const List&) {
            return Json{{"op", "list"}};
          },
          [](const Fetch& fetch) {
            Json ranges = Json::array();
            for (const auto& range : fetch.ranges) ranges.push_back({range.offset, range.length});
            return Json{{"op", "fetch"},
                        {"slot", fetch.slot.value},
                        {"path", fetch.path},
                        {"ranges", ranges},
                        {"into", fetch.into}};
          },
          [](const Counted& counted) {
            return Json{{"op", "counted"}, {"checkpoint", counted.checkpoint}, {"step", counted.step.value}};
          },
          [](const Drop& drop) {
            return Json{{"op", "drop"}, {"checkpoint", drop.checkpoint}};
          },
          [](const Saved& saved) {
            return Json{{"op", "saved"},
                        {"step", saved.step.value},
                        {"path", saved.path},
                        {"bytes", saved.bytes},
                        {"request", saved.request}};
          },
          [](const Evidence& evidence) {
            Json json{{"op", "evidence"},
                      {"rank", evidence.rank.value},
                      {"kind", evidence.kind},
                      {"message", evidence.message}};
            if (evidence.peer) json["peer"] = evidence.peer->value;
            if (evidence.step) json["step"] = evidence.step->value;
            if (!evidence.digest.empty()) json["digest"] = evidence.digest;
            return json;
          },
      },
      request);
}

Result<Request> read(ObjectReader& reader) {
  std::string op;
  if (!reader.read("op", op)) return Error(Code::kInvalidArgument, "a launcher socket request needs an op");
  if (op == "push") {
    Push push;
    reader.read("checkpoint", push.checkpoint);
    reader.read("files", push.files);
    return Request(push);
  }
  if (op == "list") return Request(List{});
  if (op == "fetch") {
    Fetch fetch;
    reader.read("slot", fetch.slot);
    reader.read("path", fetch.path);
    reader.read("into", fetch.into);
    reader.each("ranges", [&](const Json& range, const std::string& path) {
      if (range.is_array() && range.size() == 2 && range[0].is_number_unsigned() && range[1].is_number_unsigned()) {
        fetch.ranges.push_back({range[0].get<uint64_t>(), range[1].get<uint64_t>()});
      } else {
        reader.problems().push_back({path, "must be [offset, length]"});
      }
    });
    return Request(fetch);
  }
  if (op == "counted") {
    Counted counted;
    reader.read("checkpoint", counted.checkpoint);
    reader.read("step", counted.step);
    return Request(counted);
  }
  if (op == "drop") {
    Drop drop;
    reader.read("checkpoint", drop.checkpoint);
    return Request(drop);
  }
  if (op == "saved") {
    Saved saved;
    reader.read("step", saved.step);
    reader.read("path", saved.path);
    reader.read("bytes", saved.bytes);
    reader.read("request", saved.request);
    return Request(saved);
  }
  if (op == "evidence") {
    Evidence evidence;
    reader.read("rank", evidence.rank);
    reader.read("kind", evidence.kind);
    reader.read("message", evidence.message);
    Rank peer;
    if (reader.read("peer", peer)) evidence.peer = peer;
    Step step;
    if (reader.read("step", step)) evidence.step = step;
    reader.read("digest", evidence.digest);
    return Request(evidence);
  }
  return Error(Code::kInvalidArgument, "unknown launcher socket op '" + op + "'");
}

Result<Json> parse_line(std::string_view line) {
  if (line.size() > kMaxLine) {
    return Error(Code::kInvalidArgument, "a launcher socket line of " + std::to_string(line.size()) +
                                             " bytes is longer than " + std::to_string(kMaxLine));
  }
  return parse_json(line);
}

}  // namespace

std::string encode(uint64_t id, const Request& request) {
  Json json = write(request);
  json["id"] = id;
  return json.dump() + "\n";
}

std::string encode(const Answer& answer) {
  Json json{{"id", answer.id}, {"ok", !answer.error.has_value()}};
  if (answer.error) json["error"] = {{"code", to_string(answer.error->code)}, {"message", answer.error->message}};
  if (!answer.copies.empty()) {
    for (const Slot slot : answer.copies) json["copies"].push_back(slot.value);
  }
  for (const Held& held : answer.held) {
    Json entry{{"slot", held.slot.value},
               {"self", held.self},
               {"own", held.own},
               {"counted", held.counted},
               {"peer", Json::array()}};
    for (const auto& copy : held.peer) entry["peer"].push_back({{"of", copy.of.value}, {"files", copy.files}});
    json["held"].push_back(std::move(entry));
  }
  return json.dump() + "\n";
}

Result<std::pair<uint64_t, Request>> decode_request(std::string_view line) {
  PITCREW_ASSIGN(const Json json, parse_line(line));
  Problems problems;
  ObjectReader reader(json, "", problems);
  uint64_t id = 0;
  reader.read("id", id);
  PITCREW_ASSIGN(Request request, read(reader));
  if (!problems.empty()) return Error(Code::kInvalidArgument, join(problems));
  return std::pair(id, std::move(request));
}

Result<Answer> decode_answer(std::string_view line) {
  PITCREW_ASSIGN(const Json json, parse_line(line));
  Problems problems;
  ObjectReader reader(json, "", problems);
  Answer answer;
  bool ok = true;
  reader.read("id", answer.id);
  reader.read("ok", ok);
  if (auto error = reader.object("error"); error || !ok) {
    std::string code, message = "the launcher refused";
    if (error) {
      error->read("code", code);
      error->read("message", message);
    }
    answer.error = Error(Code::kInternal, message);
    for (int c = 0; c <= static_cast<int>(Code::kInternal); ++c) {
      if (to_string(static_cast<Code>(c)) == code) answer.error->code = static_cast<Code>(c);
    }
  }
  const auto read_slot = [&](const Json& value, const std::string& path, Slot& slot) {
    if (value.is_number_unsigned()) {
      slot = Slot(value.get<uint32_t>());
    } else {
      problems.push_back({path, "must be a slot number"});
    }
  };
  reader.each("copies", [&](const Json& value, const std::string& path) {
    read_slot(value, path, answer.copies.emplace_back());
  });
  reader.each("held", [&](const Json& value, const std::string& path) {
    ObjectReader entry(value, path, problems);
    Held& held = answer.held.emplace_back();
    entry.read("slot", held.slot);
    entry.read("self", held.self);
    entry.read("own", held.own);
    entry.read("counted", held.counted);
    entry.each("peer", [&](const Json& copy_json, const std::string& copy_path) {
      ObjectReader copy(copy_json, copy_path, problems);
      held.peer.emplace_back();
      copy.read("of", held.peer.back().of);
      copy.read("files", held.peer.back().files);
    });
  });
  if (!problems.empty()) return Error(Code::kInvalidArgument, join(problems));
  return answer;
}

}  // namespace pitcrew::launcher_socket
