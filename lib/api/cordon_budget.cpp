#include "lib/api/cordon_budget.hpp"

#include <cmath>
#include <cstdio>

#include "lib/api/training_job.hpp"

namespace pitcrew::api {
namespace {

bool counts(const CordonBudget& budget, const Cordon& cordon, Instant now) {
  return now - cordon.time < budget.spec.window;
}

std::string percent(double fraction) {
  char text[32];
  std::snprintf(text, sizeof text, "%g %%", std::round(fraction * 1000) / 10);
  return text;
}

}  // namespace

const ResourceType& CordonBudget::type() {
  static const ResourceType type{kGroup, kVersion, "CordonBudget", "cordonbudgets", false};
  return type;
}

Json CordonBudget::encode() const {
  Json json = object_head(type(), metadata);
  json["spec"] = {{"maxNodes", spec.max_nodes}, {"maxFraction", spec.max_fraction}, {"window", to_string(spec.window)}};
  for (const auto& [node, cordon] : cordons) {
    Json entry{{"nodeUID", cordon.node_uid},
               {"time", to_rfc3339(cordon.time, 3)},
               {"fault", cordon.fault},
               {"certain", cordon.certain}};
    if (!cordon.provider_id.empty()) entry["providerID"] = cordon.provider_id;
    json["status"]["cordons"][node] = std::move(entry);
  }
  return json;
}

CordonBudget decode_cordon_budget(const Json& json, Problems& problems) {
  CordonBudget budget;
  ObjectReader reader(json, "", problems);
  read_object_head(reader, CordonBudget::type(), budget.metadata, problems,
                   "call it " + std::string(CordonBudget::kName));
  if (auto spec = reader.object("spec")) {
    spec->read("maxNodes", budget.spec.max_nodes);
    spec->read("maxFraction", budget.spec.max_fraction);
    spec->read("window", budget.spec.window);
    spec->finish();
  }
  if (auto status = reader.object("status")) {
    const Json* cordons = status->raw("cordons");
    if (cordons != nullptr && !cordons->is_object()) {
      status->problem("cordons", "must be an object of entries by the node's name");
    } else if (cordons != nullptr) {
      for (const auto& [node, entry] : cordons->items()) {
        ObjectReader cordon(entry, status->path_of("cordons") + "." + node, problems);
        Cordon& out = budget.cordons[node];
        cordon.read("providerID", out.provider_id);
        cordon.read("nodeUID", out.node_uid);
        if (!cordon.read("time", out.time) && !cordon.has("time")) cordon.problem("time", "is missing");
        cordon.read("fault", out.fault);
        cordon.read("certain", out.certain);
        cordon.finish();
      }
    }
    status->finish();
  }
  reader.finish();
  return budget;
}

void validate(const CordonBudget& budget, Problems& problems) {
  if (budget.spec.max_fraction < 0 || budget.spec.max_fraction > 1) {
    problems.push_back({"spec.maxFraction", "must be from 0 to 1, a share of the nodes that have an agent"});
  }
  if (budget.spec.window < seconds(10) || budget.spec.window > hours(24)) {
    problems.push_back({"spec.window", "must be from 10s to 24h"});
  }
  if (budget.cordons.size() > CordonBudget::kMaxCordons) {
    problems.push_back({"status.cordons", "are more than " + std::to_string(CordonBudget::kMaxCordons) +
                                              "; take out those that are older than the window"});
  }
}

Result<CordonBudget> CordonBudget::decode(const Json& json) {
  Problems problems;
  CordonBudget budget = decode_cordon_budget(json, problems);
  validate(budget, problems);
  if (problems.empty()) return budget;
  return Error(Code::kInvalidArgument, "CordonBudget " + budget.metadata.name + ": " + join(problems));
}

std::optional<std::string> cordon_refusal(const CordonBudget& budget, const std::string& node, uint32_t agents,
                                          Instant now) {
  size_t nodes = 1;
  for (const auto& [name, cordon] : budget.cordons) nodes += name != node && counts(budget, cordon, now);
  if (nodes <= budget.spec.max_nodes) return std::nullopt;
  if (agents > 0 && static_cast<double>(nodes) <= budget.spec.max_fraction * agents) return std::nullopt;
  return "with " + node + ", " + std::to_string(nodes) + " of " + (agents > 0 ? std::to_string(agents) + " " : "") +
         "nodes would have been cordoned within " + to_string(budget.spec.window) + "; CordonBudget " +
         budget.metadata.name + " allows " + std::to_string(budget.spec.max_nodes) + ", or " +
         percent(budget.spec.max_fraction) + " where that is more";
}

std::vector<std::string> expired_cordons(const CordonBudget& budget, Instant now) {
  std::vector<std::string> nodes;
  for (const auto& [node, cordon] : budget.cordons) {
    if (!counts(budget, cordon, now)) nodes.push_back(node);
  }
  return nodes;
}

}  // namespace pitcrew::api
