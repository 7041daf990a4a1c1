#include <iterator>

#include "crds/generate/cases.hpp"
#include "crds/generate/change.hpp"
#include "lib/api/cordon_budget.hpp"
#include "lib/api/node_health.hpp"
#include "lib/base/yaml.hpp"

namespace pitcrew::crd {
namespace {

template <typename Object>
Problems problems_by(Object (*decode)(const Json&, Problems&), void (*validate)(const Object&, Problems&),
                     const Json& manifest) {
  Problems problems;
  validate(decode(manifest, problems), problems);
  return problems;
}

Problems problems_of_policy(const Json& manifest) {
  return problems_by<api::HealthPolicy>(api::decode_health_policy, api::validate, manifest);
}
Problems problems_of_health(const Json& manifest) {
  return problems_by<api::NodeHealth>(api::decode_node_health, api::validate, manifest);
}
Problems problems_of_budget(const Json& manifest) {
  return problems_by<api::CordonBudget>(api::decode_cordon_budget, api::validate, manifest);
}

constexpr char kPolicy[] = R"(
apiVersion: pitcrew.dev/v1alpha1
kind: HealthPolicy
metadata: {name: default}
spec:
  rules:
  - name: xid-79
    match: {kind: xid, codes: [79, 144-150]}
    severity: Fault
    certain: true
    action: Reboot
    clears: {when: AfterReboot}
    message: gone
    source: NVIDIA
  - name: parity
    match:
      kind: xid
      codes: [74]
      any: [{value: reg0, bits: [4, 5]}, {value: reg2, bitsOutside: []}, {value: unit, is: [RLW, 7]}, {value: a, growsPerMinuteAboveValue: b}]
      all: [{value: rows, above: 3}, {value: count, belowValue: expected}, {value: x, present: false}, {value: z, growsPerMinute: 1.5}]
      alone: 10s
    count: 3
    window: 24h
    burst: 3m
    same: [link]
    scope: Node
    severity: Warning
    message: repeated
)";

// At every limit, on both of its sides, and what people write.
constexpr Change kPolicyChanges[] = {
    {"/spec", "null"},
    {"/spec/rules", "null"},
    {"/spec/rules", "[]"},
    {"/spec/rules/0/name", "null"},
    {"/spec/rules/0/name", R"("")"},
    {"/spec/rules/0/name", R"("XID 79")"},
    {"/spec/rules/0/name", R"("parity")"},
    {"/spec/rules/0/name", R"("a-name-of-sixty-three-characters-that-fits-just-so-1234567890123")"},
    {"/spec/rules/0/name", R"("a-name-of-sixty-four-characters-that-doesnt-fit-so-12345678901234")"},
    {"/spec/rules/0/exec", R"("/bin/true")"},
    {"/spec/rules/0/match", "null"},
    {"/spec/rules/0/match/kind", "null"},
    {"/spec/rules/0/match/kind", R"("probe.failed")"},
    {"/spec/rules/1/match/kind", R"("probe.failed")"},
    {"/spec/rules/0/match/codes", "[1000000]"},
    {"/spec/rules/0/match/codes", "[1000001]"},
    {"/spec/rules/0/match/codes", "[-1]"},
    {"/spec/rules/0/match/codes", R"(["3-1000001"])"},
    {"/spec/rules/0/match/codes", R"(["many"])"},
    {"/spec/rules/0/match/codes", "[1.5]"},
    {"/spec/rules/0/match/onlyGPU", "true"},
    {"/spec/rules/1/match/onlyGPU", "true"},
    {"/spec/rules/1/match/alone", R"("5m")"},
    {"/spec/rules/1/match/alone", R"("301s")"},
    {"/spec/rules/1/match/alone", R"("long")"},
    {"/spec/rules/1/match/all/0/value", "null"},
    {"/spec/rules/1/match/all/0/value", R"("")"},
    {"/spec/rules/1/match/all/0/above", "null"},
    {"/spec/rules/1/match/all/0/below", "2"},
    {"/spec/rules/1/match/all/0/is", "[]"},
    {"/spec/rules/1/match/all/0", R"({"value": "reg0", "bits": [32]})"},
    {"/spec/rules/1/match/all/0", R"({"value": "reg0", "bitsOutside": [32]})"},
    {"/spec/rules/1/match/all/0/is", "[true]"},
    {"/spec/rules/1/match/any/0/bits", "[0, 31]"},
    {"/spec/rules/1/match/any/0/bits", "[32]"},
    {"/spec/rules/1/match/any/0/bits", "[-1]"},
    {"/spec/rules/1/match/any/0/bits", "[]"},
    {"/spec/rules/1/match/any/1/bitsOutside", "[32]"},
    {"/spec/rules/1/match/any/0/value", "null"},
    {"/spec/rules/1/match/any/0/above", "1"},
    {"/spec/rules/1/count", "1"},
    {"/spec/rules/1/count", "0"},
    {"/spec/rules/1/count", "-1"},
    {"/spec/rules/1/count", "100"},
    {"/spec/rules/1/count", "101"},
    {"/spec/rules/1/count", "5000000000"},
    {"/spec/rules/1/window", "null"},
    {"/spec/rules/1/window", R"("0")"},
    {"/spec/rules/1/window", R"("336h")"},
    {"/spec/rules/1/window", R"("14d1s")"},
    {"/spec/rules/1/window", R"("a day")"},
    {"/spec/rules/1/burst", R"("24h")"},
    {"/spec/rules/1/burst", R"("25h")"},
    {"/spec/rules/1/burst", R"("x")"},
    {"/spec/rules/1/scope", R"("gpu")"},
    {"/spec/rules/1/severity", "null"},
    {"/spec/rules/1/severity", R"("Bad")"},
    {"/spec/rules/0/severity", R"("Warning")"},
    {"/spec/rules/0/severity", "null"},
    {"/spec/rules/0/certain", R"("yes")"},
    {"/spec/rules/0/action", R"("Kill")"},
    {"/spec/rules/0/clears", R"({"when": "Never"})"},
    {"/spec/rules/0/clears", R"({"after": "1s"})"},
    {"/spec/rules/0/clears", R"({"after": "0"})"},
    {"/spec/rules/0/clears", R"({"when": "ByHand", "after": "0"})"},
    {"/spec/rules/0/clears", R"({"after": "soon"})"},
    {"/spec/rules/0/message", "null"},
    {"/spec/rules/0/message", R"("")"},
    {"/spec/rules/0/source", "null"},
};

constexpr char kHealth[] = R"(
apiVersion: pitcrew.dev/v1alpha1
kind: NodeHealth
metadata: {name: i-0abc}
spec: {providerID: "aws:///us-east-2b/i-0ABC", nodeUID: 1b2c, nodeName: ip-10-0-0-1}
status:
  healthy: false
  needs: Replace
  message: "xid-79: gone"
  bootID: b1
  memory: "{}"
  gpus: [{uuid: GPU-1, serial: "165", pci: "0000:b9:00.0", model: NVIDIA H200}]
  verdicts: [{rule: xid-79, device: GPU-1, severity: Fault, certain: true, action: Replace, message: gone, since: "2026-03-01T00:00:00.250Z", last: "2026-03-01T00:00:00Z", count: 2}]
  history: [{time: "2026-03-01T00:00:00Z", rule: xid-79, device: GPU-1, change: Raised, message: gone, severity: Fault}]
  rates: [{device: rdmap0s29, counter: retrans_pkts, perSecond: 12.5, time: "2026-03-01T00:00:00Z"}]
  checks: [{id: c1, test: memory, outcome: Passed, message: "", time: "2026-03-01T00:00:00Z"}]
)";

constexpr Change kHealthChanges[] = {
    {"/spec", "null"},
    {"/spec", R"({"nodeName": "n"})"},
    {"/spec", R"({"nodeUID": "1b2c"})"},
    {"/spec", R"({"nodeUID": "", "providerID": ""})"},
    {"/metadata/name", R"("node-1b2c")"},
    {"/metadata/name", R"("ip-10-0-0-1")"},
    {"/spec/providerID", R"("i-0abc")"},
    {"/spec/providerID", R"("aws:///us-east-2b/i-0abd")"},
    {"/spec/providerID", "null"},
    {"/status", "null"},
    {"/status/needs", R"("Kill")"},
    {"/status/healthy", R"("no")"},
    {"/status/extra", "1"},
    {"/status/checks/0/outcome", R"("Fine")"},
    {"/status/history/0/severity", R"("Bad")"},
    {"/status/verdicts/0/since", R"("yesterday")"},
};

constexpr char kBudget[] = R"(
apiVersion: pitcrew.dev/v1alpha1
kind: CordonBudget
metadata: {name: default}
spec: {maxNodes: 5, maxFraction: 0.5, window: 1h}
status:
  cordons:
    ip-10-0-0-1: {providerID: "aws:///us-east-2b/i-0abc", nodeUID: 1b2c, time: "2026-03-01T00:00:00.250Z", fault: xid-79, certain: true}
)";

constexpr Change kBudgetChanges[] = {
    {"/spec", "null"},
    {"/spec/maxNodes", "0"},
    {"/spec/maxNodes", "-1"},
    {"/spec/maxNodes", "5000000000"},
    {"/spec/maxFraction", "0"},
    {"/spec/maxFraction", "1"},
    {"/spec/maxFraction", "20"},
    {"/spec/maxFraction", "-0.1"},
    {"/spec/window", R"("10s")"},
    {"/spec/window", R"("9s")"},
    {"/spec/window", R"("24h")"},
    {"/spec/window", R"("25h")"},
    {"/spec/window", R"("never")"},
    {"/spec/maxNode", "3"},
    {"/status", "null"},
    {"/status/cordons", "[]"},
    {"/status/cordons/ip-10-0-0-1/time", "null"},
};

Json yaml(const char* text) { return parse_yaml(text)->front().json; }

}  // namespace

bool print_health_cases(const std::string& kind, std::ostream& out) {
  if (kind == "healthpolicy") {
    const Json good = yaml(kPolicy);
    print_changes(out, good, std::begin(kPolicyChanges), std::end(kPolicyChanges), problems_of_policy);
    Json many = good;
    for (int i = 0; i < 257; ++i) {
      many["spec"]["rules"][i] = good["spec"]["rules"][0];
      many["spec"]["rules"][i]["name"] = "rule-" + std::to_string(i);
    }
    print_case(out, "257 rules", many, problems_of_policy(many));
    many["spec"]["rules"].erase(256);
    print_case(out, "256 rules", many, problems_of_policy(many));
    Json wordy = good;
    wordy["spec"]["rules"][0]["message"] = std::string(1025, 'x');
    print_case(out, "a long message", wordy, problems_of_policy(wordy));
    return true;
  }
  if (kind == "nodehealth") {
    const Json good = yaml(kHealth);
    print_changes(out, good, std::begin(kHealthChanges), std::end(kHealthChanges), problems_of_health);
    for (const char* list : {"history", "verdicts"}) {
      Json many = good;
      for (int i = 0; i < 101; ++i) many["status"][list][i] = good["status"][list][0];
      print_case(out, std::string("101 of ") + list, many, problems_of_health(many));
    }
    return true;
  }
  if (kind == "cordonbudget") {
    print_changes(out, yaml(kBudget), std::begin(kBudgetChanges), std::end(kBudgetChanges), problems_of_budget);
    return true;
  }
  return false;
}

}  // namespace pitcrew::crd
