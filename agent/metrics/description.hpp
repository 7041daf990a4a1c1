#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "agent/probe/observation.hpp"

namespace pitcrew::agent {

enum class MetricType { kGauge, kCounter };

// One metric: its row says all that there is to say, and docs/agent-metrics.md is made of these rows.
struct MetricRow {
  std::string_view name;
  MetricType type = MetricType::kGauge;
  std::string_view help;
  // Where its value comes from: the newest reading of this kind, one metric a device. Empty: the agent counts it.
  std::string_view kind;
  std::string_view value;
  double scale = 1;
  // Where it is no single value of the reading.
  std::optional<double> (*read)(const Observation&) = nullptr;
  // The labels of what the agent counts.
  std::string_view labels;
};

std::span<const MetricRow> metric_rows();
const MetricRow& metric_row(std::string_view name);

// How a device of a kind is labelled: by its GPU's labels (empty), or by this one label.
std::string_view device_label(std::string_view kind);

// docs/agent-metrics.md.
std::string metrics_page();

}  // namespace pitcrew::agent
