// Prints docs/metrics.md: every metric of the operator and of the launchers, from the code that shows them.
#include <iostream>
#include <set>
#include <sstream>

#include <prometheus/metric_family.h>

#include "launcher/app/metrics_text.hpp"
#include "operator/app/metrics.hpp"

namespace {

using namespace pitcrew;

std::string type_of(prometheus::MetricType type) {
  switch (type) {
    case prometheus::MetricType::Counter:
      return "counter";
    case prometheus::MetricType::Gauge:
      return "gauge";
    case prometheus::MetricType::Histogram:
      return "histogram";
    default:
      return "untyped";
  }
}

void row(const std::string& name, const std::string& type, const std::string& labels, const std::string& help) {
  std::cout << "| `" << name << "` | " << type << " | " << labels << " | " << help << " |\n";
}

void table() { std::cout << "| metric | type | labels | what it says |\n|---|---|---|---|\n"; }

void operators() {
  for (const prometheus::MetricFamily& family : control::OperatorMetrics::everything()) {
    std::set<std::string> labels;
    for (const auto& metric : family.metric) {
      for (const auto& label : metric.label) labels.insert("`" + label.name + "`");
    }
    std::string listed;
    for (const std::string& label : labels) listed += (listed.empty() ? "" : ", ") + label;
    row(family.name, type_of(family.type), listed, family.help);
  }
}

void launchers() {
  launcher::MetricsInput input;
  input.header.durable_step = input.header.memory_step = Step(1);
  input.ranks.resize(1);
  input.ranks[0].line.updates = 1;
  input.gauges = {{{"loss", 1.0}}};
  std::istringstream text(launcher::metrics_text(input));
  std::string name, help, type;
  for (std::string line; std::getline(text, line);) {
    if (line.starts_with("# HELP ")) {
      name = line.substr(7, line.find(' ', 7) - 7);
      help = line.substr(line.find(' ', 7) + 1);
    } else if (line.starts_with("# TYPE ")) {
      type = line.substr(line.rfind(' ') + 1);
    } else {
      std::string labels;
      for (size_t at = line.find('{'); at != std::string::npos && line[at] != '}';
           at = line.find_first_of(",}", at + 1)) {
        const size_t equals = line.find('=', at);
        labels += (labels.empty() ? "`" : ", `") + line.substr(at + 1, equals - at - 1) + "`";
        at = line.find('"', equals + 2);
      }
      row(name, type, labels, help.ends_with('.') ? help.substr(0, help.size() - 1) : help);
    }
  }
}

}  // namespace

int main() {
  std::cout
      << "# Metrics of the operator and the launchers\n\n"
         "Made from the code that shows them by `scripts/dashboards generate`; change them there. The agent's are in\n"
         "[agent-metrics.md](agent-metrics.md).\n\n"
         "In Prometheus every series of a job has the labels `namespace` and `job` (the TrainingJob's name), a "
         "launcher's also\n"
         "`pod`, an agent's `node`. The chart's PodMonitors (`--set monitors.enabled=true`) see to that: operator and "
         "agents with\n"
         "`honorLabels: true` and without the scrape's own `job` and `namespace`, launchers with `job` from the pod's "
         "label `pitcrew.dev/job`\n"
         "(`jobLabel`), launchers and agents with `node` from the pod's node. Whoever scrapes in another way does the "
         "same.\n\n"
         "## The operator\n\nOn its port `metrics`, beside the process's own `process_*`. What is about jobs is told "
         "by the leader "
         "alone, from the jobs' status: at most\n30 s behind while a job trains, and gone with the job.\n\n";
  table();
  operators();
  std::cout
      << "\n## Launchers\n\nOn the training container's port `pitcrew-metrics`: the template's of that name, else the "
         "operator adds one,\n9401 or the next that the pod's containers don't name. With `hostNetwork` none is "
         "added: there the port would be the node's.\nLive, and per rank.\n\n";
  table();
  launchers();
}
