#include "cli/health/health.hpp"

#include <charconv>

#include "agent/judge/builtin_policy.hpp"
#include "agent/judge/explain.hpp"
#include "lib/base/file.hpp"
#include "lib/base/yaml.hpp"

namespace pitcrew::cli {
namespace {

constexpr uint64_t kMaxPolicy = 1 << 20;

Result<api::HealthPolicy> policy_of(const HealthOptions& options) {
  if (options.policy.empty()) return agent::builtin_policy();
  PITCREW_ASSIGN(const std::string text, read_file(posix_file_system(), options.policy, kMaxPolicy));
  auto documents = parse_yaml(text);
  if (!documents) return documents.error().with_context(options.policy);
  api::HealthPolicy policy = agent::builtin_policy();
  for (const YamlDocument& document : *documents) {
    Problems problems;
    const api::HealthPolicy over = api::decode_health_policy(document.json, problems);
    api::validate(over, problems);
    if (!problems.empty()) {
      const Problem& first = problems.front();
      return Error(Code::kInvalidArgument,
                   options.policy + ":" + std::to_string(document.line_of(first.path)) + ": " + join(problems));
    }
    policy = api::merge(std::move(policy), over);
  }
  return policy;
}

int refuse(std::ostream& err, const Error& error) {
  err << "pitcrew health: " << error.message << "\n";
  return 2;
}

std::string lower(std::string text) {
  for (char& c : text) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return text;
}

}  // namespace

int explain_health(const std::string& what, const std::string& code, const HealthOptions& options, std::ostream& out,
                   std::ostream& err) {
  const std::string kind = lower(what);
  uint32_t number = 0;
  const auto [end, error] = std::from_chars(code.data(), code.data() + code.size(), number);
  if ((kind != "xid" && kind != "sxid") || error != std::errc() || end != code.data() + code.size()) {
    return refuse(err, Error(Code::kInvalidArgument,
                             "explain '" + what + " " + code + "' is not understood; write it like: explain XID 94"));
  }
  const auto policy = policy_of(options);
  if (!policy) return refuse(err, policy.error());
  out << agent::explain(*policy, kind, number);
  return 0;
}

int print_health_table(const HealthOptions& options, std::ostream& out, std::ostream& err) {
  const auto policy = policy_of(options);
  if (!policy) return refuse(err, policy.error());
  out << agent::xid_page(*policy);
  return 0;
}

int print_health_policy(const HealthOptions& options, std::ostream& out, std::ostream& err) {
  if (options.policy.empty()) {
    out << agent::builtin_policy_text();
    return 0;
  }
  const auto policy = policy_of(options);
  if (!policy) return refuse(err, policy.error());
  out << policy->encode().dump(2) << "\n";
  return 0;
}

}  // namespace pitcrew::cli
