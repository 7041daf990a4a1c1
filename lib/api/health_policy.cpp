#include "lib/api/health_policy.hpp"

#include <algorithm>
#include <charconv>
#include <set>

#include "lib/api/training_job.hpp"

namespace pitcrew::api {
namespace {

const std::vector<std::pair<std::string_view, HealthSeverity>> kSeverities = {
    {"Info", HealthSeverity::kInfo}, {"Warning", HealthSeverity::kWarning}, {"Fault", HealthSeverity::kFault}};
const std::vector<std::pair<std::string_view, HealthAction>> kActions = {{"None", HealthAction::kNone},
                                                                         {"Restart", HealthAction::kRestart},
                                                                         {"Reset", HealthAction::kReset},
                                                                         {"Reboot", HealthAction::kReboot},
                                                                         {"Replace", HealthAction::kReplace}};
const std::vector<std::pair<std::string_view, HealthScope>> kScopes = {{"GPU", HealthScope::kGpu},
                                                                       {"Node", HealthScope::kNode}};
const std::vector<std::pair<std::string_view, HealthClears>> kClears = {{"AfterTime", HealthClears::kAfterTime},
                                                                        {"AfterReboot", HealthClears::kAfterReboot},
                                                                        {"AfterCheck", HealthClears::kAfterCheck},
                                                                        {"ByHand", HealthClears::kByHand}};

template <typename Enum>
std::string_view word_of(const std::vector<std::pair<std::string_view, Enum>>& words, Enum value) {
  for (const auto& [word, meaning] : words) {
    if (meaning == value) return word;
  }
  return words.front().first;
}

// 48, "48" or "144-150".
std::optional<CodeRange> code_range(const Json& json) {
  if (json.is_number_unsigned() && json.get<uint64_t>() <= 1'000'000) {
    const auto code = json.get<uint32_t>();
    return CodeRange{code, code};
  }
  if (!json.is_string()) return std::nullopt;
  const std::string& text = json.get_ref<const std::string&>();
  CodeRange range;
  const char* end = text.data() + text.size();
  auto [at, error] = std::from_chars(text.data(), end, range.first);
  if (error != std::errc()) return std::nullopt;
  range.last = range.first;
  if (at != end) {
    if (*at != '-') return std::nullopt;
    const auto second = std::from_chars(at + 1, end, range.last);
    if (second.ec != std::errc() || second.ptr != end) return std::nullopt;
  }
  if (range.last < range.first || range.last > 1'000'000) return std::nullopt;
  return range;
}

void read_bits(ObjectReader& reader, std::string_view key, std::vector<uint32_t>& bits) {
  reader.each(key, [&](const Json& bit, const std::string& path) {
    const bool fine = bit.is_number_unsigned() && bit.get<uint64_t>() < 32;
    bits.push_back(fine ? bit.get<uint32_t>() : 0);
    if (!fine) {
      reader.problems().push_back({path, "must be a bit of a 32-bit register, 0 to 31"});
    }
  });
}

void read_test(const Json& json, const std::string& path, HealthTest& test, Problems& problems) {
  ObjectReader reader(json, path, problems);
  reader.read("value", test.value);
  reader.each("is", [&](const Json& word, const std::string& word_path) {
    if (word.is_string()) {
      test.is.push_back(word.get<std::string>());
    } else if (word.is_number_integer()) {
      test.is.push_back(std::to_string(word.get<int64_t>()));
    } else {
      problems.push_back({word_path, "must be text or a whole number"});
    }
  });
  reader.read("above", test.above);
  reader.read("below", test.below);
  reader.read("aboveValue", test.above_value);
  reader.read("belowValue", test.below_value);
  reader.read("grows", test.grows);
  reader.read("growsLess", test.grows_less);
  reader.read("growsPerMinute", test.per_minute);
  reader.read("growsPerMinuteAboveValue", test.per_minute_above_value);
  read_bits(reader, "bits", test.bits);
  if (reader.has("bitsOutside")) read_bits(reader, "bitsOutside", test.bits_outside.emplace());
  reader.read("present", test.present);
  reader.finish();
}

void read_tests(ObjectReader& match, std::string_view key, std::vector<HealthTest>& tests) {
  match.each(key, [&](const Json& test, const std::string& path) {
    read_test(test, path, tests.emplace_back(), match.problems());
  });
}

void read_match(ObjectReader& reader, HealthMatch& match) {
  reader.read("kind", match.kind);
  reader.each("codes", [&](const Json& code, const std::string& path) {
    if (const auto range = code_range(code)) {
      match.codes.push_back(*range);
    } else {
      reader.problems().push_back({path, "must be a code like 79 or a range like \"144-150\""});
    }
  });
  read_tests(reader, "all", match.all);
  read_tests(reader, "any", match.any);
  reader.read("alone", match.alone);
  reader.read("onlyGPU", match.only_gpu);
  reader.finish();
}

void read_rule(const Json& json, const std::string& path, HealthRule& rule, Problems& problems) {
  ObjectReader reader(json, path, problems);
  reader.read("name", rule.name);
  if (auto match = reader.object("match")) {
    read_match(*match, rule.match);
  } else {
    reader.problem("match", "is missing; say what counts, like {kind: xid, codes: [79]}");
  }
  reader.read("count", rule.count);
  reader.read("window", rule.window);
  reader.read("burst", rule.burst);
  reader.read("same", rule.same);
  reader.read_enum("scope", rule.scope, kScopes);
  if (!reader.read_enum("severity", rule.severity, kSeverities) && !reader.has("severity")) {
    reader.problem("severity", "is missing; say Info, Warning or Fault");
  }
  reader.read("certain", rule.certain);
  reader.read_enum("action", rule.action, kActions);
  if (auto clears = reader.object("clears")) {
    clears->read_enum("when", rule.clears, kClears);
    clears->read("after", rule.clear_after);
    clears->finish();
  }
  reader.read("message", rule.message);
  reader.read("source", rule.source);
  reader.finish();
}

Json write_test(const HealthTest& test) {
  Json json{{"value", test.value}};
  if (!test.is.empty()) json["is"] = test.is;
  if (test.above) json["above"] = *test.above;
  if (test.below) json["below"] = *test.below;
  if (!test.above_value.empty()) json["aboveValue"] = test.above_value;
  if (!test.below_value.empty()) json["belowValue"] = test.below_value;
  if (test.grows) json["grows"] = *test.grows;
  if (test.grows_less) json["growsLess"] = *test.grows_less;
  if (test.per_minute) json["growsPerMinute"] = *test.per_minute;
  if (!test.per_minute_above_value.empty()) json["growsPerMinuteAboveValue"] = test.per_minute_above_value;
  if (!test.bits.empty()) json["bits"] = test.bits;
  if (test.bits_outside) json["bitsOutside"] = *test.bits_outside;
  if (test.present) json["present"] = *test.present;
  return json;
}

Json write_rule(const HealthRule& rule) {
  Json match{{"kind", rule.match.kind}};
  for (const CodeRange& range : rule.match.codes) {
    if (range.first == range.last) {
      match["codes"].push_back(range.first);
    } else {
      match["codes"].push_back(std::to_string(range.first) + "-" + std::to_string(range.last));
    }
  }
  for (const HealthTest& test : rule.match.all) match["all"].push_back(write_test(test));
  for (const HealthTest& test : rule.match.any) match["any"].push_back(write_test(test));
  if (rule.match.alone > Duration(0)) match["alone"] = to_string(rule.match.alone);
  if (rule.match.only_gpu) match["onlyGPU"] = true;
  Json json{{"name", rule.name},
            {"match", match},
            {"count", rule.count},
            {"scope", to_string(rule.scope)},
            {"severity", to_string(rule.severity)},
            {"certain", rule.certain},
            {"action", to_string(rule.action)},
            {"clears", {{"when", to_string(rule.clears)}, {"after", to_string(rule.clear_after)}}},
            {"message", rule.message},
            {"source", rule.source}};
  if (rule.window > Duration(0)) json["window"] = to_string(rule.window);
  if (rule.burst > Duration(0)) json["burst"] = to_string(rule.burst);
  if (!rule.same.empty()) json["same"] = rule.same;
  return json;
}

bool rule_name(std::string_view name) {
  return !name.empty() && name.size() <= 63 && name.front() != '-' && name.back() != '-' &&
         std::all_of(name.begin(), name.end(),
                     [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'; });
}

int ways(const HealthTest& test) {
  return int(!test.is.empty()) + int(test.above.has_value()) + int(test.below.has_value()) +
         int(!test.above_value.empty()) + int(!test.below_value.empty()) + int(test.grows.has_value()) +
         int(test.grows_less.has_value()) + int(test.per_minute.has_value()) +
         int(!test.per_minute_above_value.empty()) + int(!test.bits.empty()) + int(test.bits_outside.has_value()) +
         int(test.present.has_value());
}

void check_tests(const std::vector<HealthTest>& tests, const std::string& path, Problems& problems) {
  for (size_t i = 0; i < tests.size(); ++i) {
    const std::string at = path + "[" + std::to_string(i) + "]";
    if (tests[i].value.empty()) problems.push_back({at + ".value", "is missing; name a value of the observation"});
    if (ways(tests[i]) != 1) {
      problems.push_back(
          {at,
           "needs exactly one of is, above, below, aboveValue, belowValue, grows, growsLess, growsPerMinute, "
           "growsPerMinuteAboveValue, bits, bitsOutside, present"});
    }
  }
}

void check_rule(const HealthRule& rule, const std::string& path, Problems& problems) {
  const auto problem = [&](const std::string& field, std::string message) {
    problems.push_back({path + field, std::move(message)});
  };
  if (!rule_name(rule.name)) {
    problem(".name", rule.name.empty() ? "is missing; a rule is replaced by its name"
                                       : "'" + rule.name + "' must be up to 63 lower-case letters, digits and '-'");
  }
  if (rule.match.kind.empty()) problem(".match.kind", "is missing; say what is observed, like xid or gpu.ecc");
  check_tests(rule.match.all, path + ".match.all", problems);
  check_tests(rule.match.any, path + ".match.any", problems);
  if (rule.match.alone > minutes(5)) problem(".match.alone", "is above 5m; faults must not wait that long");
  if (rule.count < 1) problem(".count", "must be at least 1");
  if (rule.count > 100) problem(".count", "must be at most 100");
  if (rule.count > 1 && rule.window <= Duration(0)) {
    problem(".window", "is missing; say within which time so many count");
  }
  if (rule.window > hours(24 * 14)) problem(".window", "is above 14 days, which is how far back history goes");
  if (rule.match.only_gpu && rule.window <= Duration(0)) problem(".window", "is missing; onlyGPU looks back that far");
  if (rule.burst > rule.window) problem(".burst", "must not be longer than window");
  if (rule.severity != HealthSeverity::kFault && rule.certain) {
    problem(".certain", "is for severity Fault; others cordon nothing");
  }
  if (rule.match.kind.starts_with("probe") && rule.severity == HealthSeverity::kFault) {
    problem(".severity", "must not be Fault; a broken probe is not a broken GPU");
  }
  if (rule.clears == HealthClears::kAfterTime && rule.clear_after <= Duration(0)) {
    problem(".clears.after", "must be above 0");
  }
  if (rule.message.empty() || rule.message.size() > 1024) {
    problem(".message", "must be 1 to 1024 characters: what it means, for the person who is on call");
  }
}

}  // namespace

std::string_view to_string(HealthSeverity severity) { return word_of(kSeverities, severity); }
std::string_view to_string(HealthAction action) { return word_of(kActions, action); }
std::string_view to_string(HealthScope scope) { return word_of(kScopes, scope); }
std::string_view to_string(HealthClears clears) { return word_of(kClears, clears); }

bool HealthRule::about(std::string_view kind, std::optional<uint32_t> code) const {
  if (match.kind != kind) return false;
  if (match.codes.empty()) return true;
  return code && std::any_of(match.codes.begin(), match.codes.end(),
                             [&](const CodeRange& range) { return range.first <= *code && *code <= range.last; });
}

const ResourceType& HealthPolicy::type() {
  static const ResourceType type{kGroup, kVersion, "HealthPolicy", "healthpolicies", false};
  return type;
}

const HealthRule* HealthPolicy::find(std::string_view name) const {
  const auto found =
      std::find_if(rules.begin(), rules.end(), [&](const HealthRule& rule) { return rule.name == name; });
  return found == rules.end() ? nullptr : &*found;
}

Json HealthPolicy::encode() const {
  Json json = object_head(type(), metadata);
  json["spec"]["rules"] = Json::array();
  for (const HealthRule& rule : rules) json["spec"]["rules"].push_back(write_rule(rule));
  return json;
}

HealthPolicy decode_health_policy(const Json& json, Problems& problems) {
  HealthPolicy policy;
  ObjectReader reader(json, "", problems);
  read_object_head(reader, HealthPolicy::type(), policy.metadata, problems, "give the policy a name");
  if (auto spec = reader.object("spec")) {
    spec->each("rules", [&](const Json& rule, const std::string& path) {
      read_rule(rule, path, policy.rules.emplace_back(), problems);
    });
    spec->finish();
  } else {
    reader.problem("spec", "is missing");
  }
  reader.finish();
  return policy;
}

void validate(const HealthPolicy& policy, Problems& problems) {
  constexpr size_t kMaxRules = 256;
  if (policy.metadata.name.empty()) problems.push_back({"metadata.name", "is missing; give the policy a name"});
  if (policy.rules.size() > kMaxRules) {
    problems.push_back({"spec.rules", "are more than " + std::to_string(kMaxRules) + "; use ranges of codes"});
  }
  std::set<std::string> names;
  for (size_t i = 0; i < policy.rules.size(); ++i) {
    check_rule(policy.rules[i], "spec.rules[" + std::to_string(i) + "]", problems);
    names.insert(policy.rules[i].name);
  }
  if (names.size() < policy.rules.size()) {
    problems.push_back({"spec.rules", "have two of one name; names tell rules apart"});
  }
}

Result<HealthPolicy> HealthPolicy::decode(const Json& json) {
  Problems problems;
  HealthPolicy policy = decode_health_policy(json, problems);
  validate(policy, problems);
  if (problems.empty()) return policy;
  const std::string name = policy.metadata.name.empty() ? "HealthPolicy" : "HealthPolicy " + policy.metadata.name;
  return Error(Code::kInvalidArgument, name + ": " + join(problems));
}

HealthPolicy merge(HealthPolicy base, const HealthPolicy& over) {
  for (const HealthRule& rule : over.rules) {
    const auto found = std::find_if(base.rules.begin(), base.rules.end(),
                                    [&](const HealthRule& other) { return other.name == rule.name; });
    if (found != base.rules.end()) {
      *found = rule;
    } else {
      base.rules.push_back(rule);
    }
  }
  return base;
}

}  // namespace pitcrew::api
