#include "agent/check/suite/table.hpp"

#include <algorithm>
#include <cstdio>
#include <vector>

namespace pitcrew::check {
namespace {

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text,
                value >= 100 || value == static_cast<double>(static_cast<long long>(value)) ? "%.0f" : "%.3g", value);
  return text;
}

}  // namespace

std::string to_table(const api::CheckReport& report) {
  std::vector<std::vector<std::string>> rows{{"TEST", "DEVICE", "OUTCOME", "SECONDS", "FIGURES"}};
  for (const api::CheckTest& test : report.tests) {
    std::string figures;
    for (const api::CheckFigure& figure : test.figures) {
      figures += (figures.empty() ? "" : ", ") + figure.name + " " + number(figure.value) +
                 (figure.unit.empty() ? "" : " " + figure.unit);
      if (figure.least) figures += " (least " + number(*figure.least) + ")";
    }
    if (!test.message.empty()) figures += (figures.empty() ? "" : "; ") + test.message;
    char seconds[32];
    std::snprintf(seconds, sizeof seconds, "%.1f", test.seconds);
    rows.push_back(
        {test.test, test.device.empty() ? "-" : test.device, std::string(to_string(test.outcome)), seconds, figures});
  }
  std::vector<size_t> widths(rows[0].size(), 0);
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string out;
  for (const auto& row : rows) {
    std::string line;
    for (size_t i = 0; i + 1 < row.size(); ++i) line += row[i] + std::string(widths[i] - row[i].size() + 2, ' ');
    line += row.back();
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  }
  const std::string of = report.node.empty() ? "the node" : "node " + report.node;
  return out + "\n" + of + (report.instance.empty() ? "" : " (" + report.instance + ")") + " by " + report.backend +
         ": " + std::string(to_string(report.outcome())) + "\n";
}

}  // namespace pitcrew::check
