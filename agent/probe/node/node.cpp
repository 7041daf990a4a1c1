#include "agent/probe/node/node.hpp"

#include <algorithm>

#include "agent/probe/observation_tools.hpp"

namespace pitcrew::agent::node {
namespace {

std::optional<Observation> memory(const Folder& proc, Instant now) {
  const auto info = proc.text("meminfo", 16 * 1024);
  if (!info) return std::nullopt;
  Observation reading = make_reading("node.memory", "", now);
  const auto total = named_number(*info, "MemTotal:"), available = named_number(*info, "MemAvailable:");
  if (total && *total > 0 && available) {
    reading.values["bytes"] = *total * 1024;
    reading.values["available_bytes"] = *available * 1024;
    reading.values["available_percent"] = 100 * *available / *total;
  }
  if (const auto broken = named_number(*info, "HardwareCorrupted:")) reading.values["corrupted_bytes"] = *broken * 1024;
  if (const auto vmstat = proc.text("vmstat", 32 * 1024)) {
    if (const auto kills = named_number(*vmstat, "oom_kill")) reading.values["oom_kills"] = *kills;
  }
  if (reading.values.empty()) return std::nullopt;
  return reading;
}

std::optional<Observation> pids(const Folder& proc, Instant now) {
  const auto load = proc.text("loadavg", 256);
  const auto threads = load ? threads_of_loadavg(*load) : std::nullopt;
  const auto numbers = proc.number("sys/kernel/pid_max"), limit = proc.number("sys/kernel/threads-max");
  if (!threads || !numbers) return std::nullopt;
  const double most = limit ? std::min(*numbers, *limit) : *numbers;
  if (most <= 0) return std::nullopt;
  Observation reading = make_reading("node.pids", "", now);
  reading.values = {{"threads", *threads}, {"limit", most}, {"used_percent", 100 * *threads / most}};
  return reading;
}

std::optional<Observation> files(const Folder& proc, Instant now) {
  // Open, free, most. (Since Linux 2.6 the second is always 0.)
  const auto text = proc.text("sys/fs/file-nr", 256);
  const auto words = text ? split_words(*text, 4) : std::vector<std::string_view>();
  if (words.size() != 3) return std::nullopt;
  const auto open = parse_number(words[0]), most = parse_number(words[2]);
  if (!open || !most || *most <= 0) return std::nullopt;
  Observation reading = make_reading("node.files", "", now);
  reading.values = {{"open", *open}, {"limit", *most}, {"used_percent", 100 * *open / *most}};
  return reading;
}

std::optional<Observation> pressure(const Folder& proc, Instant now) {
  Observation reading = make_reading("node.pressure", "", now);
  for (const char* what : {"cpu", "memory", "io"}) {
    const auto text = proc.text(std::string("pressure/") + what, 512);
    if (!text) continue;
    for (const char* who : {"some", "full"}) {
      if (const auto percent = waited_percent(*text, who)) {
        reading.values[std::string(what) + "_" + who + "_percent"] = *percent;
      }
    }
  }
  if (reading.values.empty()) return std::nullopt;
  return reading;
}

}  // namespace

std::optional<double> named_number(std::string_view text, std::string_view name) {
  for (const std::string_view line : split_lines(text)) {
    const auto words = split_words(line, 2);
    if (words.size() == 2 && words[0] == name) return parse_number(words[1]);
  }
  return std::nullopt;
}

std::optional<double> waited_percent(std::string_view pressure, std::string_view who) {
  for (const std::string_view line : split_lines(pressure, 8)) {
    const auto words = split_words(line, 8);
    if (words.empty() || words[0] != who) continue;
    for (const std::string_view word : words) {
      if (word.starts_with("avg60=")) return parse_number(word.substr(6));
    }
  }
  return std::nullopt;
}

std::optional<double> threads_of_loadavg(std::string_view text) {
  const auto words = split_words(text, 5);
  if (words.size() < 4) return std::nullopt;
  const size_t slash = words[3].find('/');
  if (slash == std::string_view::npos) return std::nullopt;
  return parse_number(words[3].substr(slash + 1));
}

Result<std::vector<Observation>> PressureProbe::look(Instant now) {
  std::vector<Observation> out;
  const auto proc = Folder::open(paths_.proc);
  if (!proc) {
    if (proc.error().code == Code::kNotFound) return out;
    return proc.error();
  }
  for (const auto read : {memory, pids, files, pressure}) {
    if (auto reading = read(*proc, now)) out.push_back(std::move(*reading));
  }
  return out;
}

}  // namespace pitcrew::agent::node
