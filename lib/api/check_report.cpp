#include "lib/api/check_report.hpp"

#include <algorithm>

namespace pitcrew::api {
namespace {

constexpr char kForm[] = "pitcrew-check-1";
const std::vector<std::pair<std::string_view, CheckOutcome>> kOutcomes = {{"Passed", CheckOutcome::kPassed},
                                                                          {"Failed", CheckOutcome::kFailed},
                                                                          {"Skipped", CheckOutcome::kSkipped},
                                                                          {"Unknown", CheckOutcome::kUnknown}};

Json encode_figure(const CheckFigure& figure) {
  Json json{{"name", figure.name}, {"unit", figure.unit}, {"value", figure.value}};
  if (figure.least) json["least"] = *figure.least;
  return json;
}

Json encode_test(const CheckTest& test) {
  Json json{{"test", test.test}, {"outcome", to_string(test.outcome)}, {"seconds", test.seconds}};
  if (!test.device.empty()) json["device"] = test.device;
  if (!test.message.empty()) json["message"] = test.message;
  for (const CheckFigure& figure : test.figures) json["figures"].push_back(encode_figure(figure));
  return json;
}

CheckOutcome worst_of(const std::vector<CheckTest>& tests, std::string_view kind) {
  bool passed = false, unknown = false;
  for (const CheckTest& test : tests) {
    if (!kind.empty() && test.test != kind) continue;
    if (test.outcome == CheckOutcome::kFailed) return CheckOutcome::kFailed;
    passed |= test.outcome == CheckOutcome::kPassed;
    unknown |= test.outcome == CheckOutcome::kUnknown;
  }
  if (unknown) return CheckOutcome::kUnknown;
  return passed ? CheckOutcome::kPassed : CheckOutcome::kSkipped;
}

}  // namespace

CheckOutcome CheckReport::outcome() const {
  const CheckOutcome worst = worst_of(tests, "");
  return worst == CheckOutcome::kSkipped ? CheckOutcome::kUnknown : worst;
}

Json CheckReport::encode() const {
  Json json{{"form", kForm},        {"id", id},           {"node", node},
            {"instance", instance}, {"backend", backend}, {"time", to_rfc3339(time, 3)},
            {"seconds", seconds},   {"devices", devices}, {"outcome", to_string(outcome())}};
  json["tests"] = Json::array();
  for (const CheckTest& test : tests) json["tests"].push_back(encode_test(test));
  return json;
}

Result<CheckReport> CheckReport::decode(const Json& json) {
  Problems problems;
  ObjectReader reader(json, "", problems);
  std::string form;
  if (!reader.read("form", form) || form != kForm) {
    return Error(Code::kInvalidArgument, "a check's result has the form '" + form + "'; " + kForm + " is understood");
  }
  CheckReport report;
  reader.read("id", report.id);
  reader.read("node", report.node);
  reader.read("instance", report.instance);
  reader.read("backend", report.backend);
  reader.read("time", report.time);
  reader.read("seconds", report.seconds);
  reader.read("devices", report.devices);
  reader.each("tests", [&](const Json& element, const std::string& path) {
    ObjectReader test(element, path, problems);
    CheckTest& out = report.tests.emplace_back();
    test.read("test", out.test);
    test.read("device", out.device);
    test.read_enum("outcome", out.outcome, kOutcomes);
    test.read("message", out.message);
    test.read("seconds", out.seconds);
    test.each("figures", [&](const Json& value, const std::string& place) {
      ObjectReader figure(value, place, problems);
      CheckFigure& number = out.figures.emplace_back();
      figure.read("name", number.name);
      figure.read("unit", number.unit);
      figure.read("value", number.value);
      figure.read("least", number.least);
    });
  });
  if (!problems.empty()) return Error(Code::kInvalidArgument, "a check's result: " + join(problems));
  return report;
}

std::string CheckReport::encode_within(size_t limit) const {
  // Numbers and messages come from our own programs; a byte that is no UTF-8 must not end them.
  const auto text = [](const CheckReport& report) {
    return report.encode().dump(-1, ' ', true, Json::error_handler_t::replace);
  };
  CheckReport shorter = *this;
  std::string out = text(shorter);
  if (out.size() <= limit) return out;
  for (CheckTest& test : shorter.tests) {
    if (test.outcome != CheckOutcome::kFailed) test.figures.clear();
  }
  if ((out = text(shorter)).size() <= limit) return out;
  // One line for each kind that has passed stays: what has been checked must not be forgotten.
  std::vector<CheckTest> kept;
  for (CheckTest& test : shorter.tests) {
    const bool good = test.outcome == CheckOutcome::kPassed || test.outcome == CheckOutcome::kSkipped;
    const bool first = std::none_of(kept.begin(), kept.end(), [&](const CheckTest& other) {
      return other.test == test.test && other.outcome == test.outcome;
    });
    if (good && !first) continue;
    if (good) test.device.clear();
    kept.push_back(std::move(test));
  }
  shorter.tests = std::move(kept);
  shorter.devices.clear();
  for (size_t length = 512; (out = text(shorter)).size() > limit && length >= 16; length /= 2) {
    for (CheckTest& test : shorter.tests) {
      if (test.message.size() > length) test.message.resize(length);
      if (length <= 64) test.figures.clear();
    }
  }
  while ((out = text(shorter)).size() > limit && !shorter.tests.empty()) {
    // Failures come first in what is kept.
    const auto good = std::find_if(shorter.tests.rbegin(), shorter.tests.rend(),
                                   [](const CheckTest& test) { return test.outcome != CheckOutcome::kFailed; });
    shorter.tests.erase(good == shorter.tests.rend() ? shorter.tests.end() - 1 : good.base() - 1);
  }
  return out;
}

std::vector<CheckResult> CheckReport::results() const {
  std::vector<CheckResult> results;
  for (const CheckTest& test : tests) {
    const bool there =
        std::any_of(results.begin(), results.end(), [&](const CheckResult& other) { return other.test == test.test; });
    const CheckOutcome outcome = worst_of(tests, test.test);
    if (there || outcome == CheckOutcome::kSkipped) continue;
    CheckResult result{id, test.test, outcome, "", time};
    for (const CheckTest& one : tests) {
      if (one.test != test.test || one.message.empty() || one.outcome != outcome) continue;
      result.message +=
          (result.message.empty() ? "" : "; ") + (one.device.empty() ? "" : one.device + ": ") + one.message;
    }
    constexpr size_t kMaxMessage = 512;
    if (result.message.size() > kMaxMessage) result.message.resize(kMaxMessage);
    results.push_back(std::move(result));
  }
  return results;
}

}  // namespace pitcrew::api
