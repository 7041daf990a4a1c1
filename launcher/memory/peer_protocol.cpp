#include "launcher/memory/peer_protocol.hpp"

#include "lib/base/json.hpp"

namespace pitcrew::launcher::peer {
namespace {

template <typename... F>
struct Overloaded : F... {
  using F::operator()...;
};

void read_held(ObjectReader& reader, launcher_socket::Held& held) {
  reader.read("own", held.own);
  reader.read("counted", held.counted);
  reader.each("peer", [&](const Json& json, const std::string& path) {
    ObjectReader copy(json, path, reader.problems());
    copy.read("of", held.peer.emplace_back().of);
    copy.read("files", held.peer.back().files);
  });
}

}  // namespace

std::string encode(const Request& request) {
  return std::visit(Overloaded{
                        [](const Ping&) {
                          return Json{{"op", "ping"}};
                        },
                        [](const List&) {
                          return Json{{"op", "list"}};
                        },
                        [](const Put& put) {
                          return Json{{"op", "put"},
                                      {"of", put.of.value},
                                      {"checkpoint", put.checkpoint},
                                      {"file", put.file},
                                      {"size", put.size}};
                        },
                        [](const Get& get) {
                          Json ranges = Json::array();
                          for (const auto& range : get.ranges) ranges.push_back({range.offset, range.length});
                          return Json{{"op", "get"}, {"path", get.path}, {"ranges", std::move(ranges)}};
                        },
                        [](const Drop& drop) {
                          return Json{{"op", "drop"}, {"of", drop.of.value}, {"checkpoint", drop.checkpoint}};
                        },
                    },
                    request)
      .dump();
}

std::string encode(const Answer& answer) {
  Json json{{"ok", !answer.error.has_value()}};
  if (answer.error) {
    json["code"] = to_string(answer.error->code);
    json["message"] = answer.error->message;
  }
  if (answer.size > 0) json["size"] = answer.size;
  if (answer.held) {
    json["own"] = answer.held->own;
    json["counted"] = answer.held->counted;
    json["peer"] = Json::array();
    for (const auto& copy : answer.held->peer) json["peer"].push_back({{"of", copy.of.value}, {"files", copy.files}});
  }
  return json.dump();
}

Result<Request> decode_request(std::string_view frame) {
  PITCREW_ASSIGN(const Json json, parse_json(frame));
  Problems problems;
  ObjectReader reader(json, "", problems);
  std::string op;
  reader.read("op", op);
  std::optional<Request> request;
  if (op == "ping") {
    request = Ping{};
  } else if (op == "list") {
    request = List{};
  } else if (op == "put") {
    Put put;
    if (!reader.read("of", put.of) || !reader.read("size", put.size)) reader.problem("size", "put needs of and size");
    reader.read("checkpoint", put.checkpoint);
    reader.read("file", put.file);
    request = std::move(put);
  } else if (op == "get") {
    Get get;
    reader.read("path", get.path);
    reader.each("ranges", [&](const Json& range, const std::string& path) {
      if (range.is_array() && range.size() == 2 && range[0].is_number_unsigned() && range[1].is_number_unsigned()) {
        get.ranges.push_back({range[0].get<uint64_t>(), range[1].get<uint64_t>()});
      } else {
        problems.push_back({path, "must be [offset, length]"});
      }
    });
    request = std::move(get);
  } else if (op == "drop") {
    Drop drop;
    if (!reader.read("of", drop.of)) reader.problem("of", "is missing");
    reader.read("checkpoint", drop.checkpoint);
    request = std::move(drop);
  } else {
    reader.problem("op", "'" + op.substr(0, 40) + "' is not known");
  }
  if (!problems.empty()) return Error(Code::kInvalidArgument, join(problems));
  return *std::move(request);
}

Result<Answer> decode_answer(std::string_view frame) {
  PITCREW_ASSIGN(const Json json, parse_json(frame));
  Problems problems;
  ObjectReader reader(json, "", problems);
  Answer answer;
  bool ok = false;
  reader.read("ok", ok);
  if (!ok) {
    std::string code, message = "the peer refused";
    reader.read("code", code);
    reader.read("message", message);
    answer.error = Error(Code::kInternal, message);
    for (int c = 0; c <= static_cast<int>(Code::kInternal); ++c) {
      if (to_string(static_cast<Code>(c)) == code) answer.error->code = static_cast<Code>(c);
    }
  }
  reader.read("size", answer.size);
  if (reader.has("own")) read_held(reader, answer.held.emplace());
  if (!problems.empty()) return Error(Code::kInvalidArgument, join(problems));
  return answer;
}

Result<uint64_t> total_of(const std::vector<launcher_socket::Fetch::Range>& ranges, uint64_t file_size) {
  if (ranges.size() > kMostRanges) {
    return Error(Code::kInvalidArgument,
                 std::to_string(ranges.size()) + " ranges in one request; at most " + std::to_string(kMostRanges));
  }
  uint64_t total = 0;
  for (const auto& range : ranges) {
    if (range.offset > file_size || range.length > file_size - range.offset) {
      return Error(Code::kInvalidArgument, "range [" + std::to_string(range.offset) + ", " +
                                               std::to_string(range.length) + "] reaches beyond the file's " +
                                               std::to_string(file_size) + " bytes");
    }
    total += range.length;
    // Ranges may repeat; what they add up to must still fit what a folder can hold.
    if (total > (uint64_t{1} << 46)) return Error(Code::kInvalidArgument, "the ranges add up to more than 64 TiB");
  }
  return total;
}

}  // namespace pitcrew::launcher::peer
