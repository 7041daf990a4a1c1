#include "lib/net/metrics/process_collector.hpp"

#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>

#include <malloc.h>
#include <sys/resource.h>
#include <unistd.h>

namespace pitcrew::net {

namespace {

// The fields of /proc/self/stat that are used here, by their numbers in proc(5).
struct Stat {
  double user_ticks = 0;      // 14
  double system_ticks = 0;    // 15
  double threads = 0;         // 20
  double start_ticks = 0;     // 22
  double virtual_bytes = 0;   // 23
  double resident_pages = 0;  // 24
};

std::optional<Stat> read_stat() {
  std::ifstream file("/proc/self/stat");
  std::string text;
  if (!std::getline(file, text)) return std::nullopt;
  // The second field is the program's name in brackets, with whatever characters it has.
  const size_t end_of_name = text.rfind(')');
  if (end_of_name == std::string::npos) return std::nullopt;
  std::istringstream rest(text.substr(end_of_name + 1));
  std::string word;
  Stat stat;
  for (int field = 3; rest >> word; ++field) {
    const double value = std::strtod(word.c_str(), nullptr);
    switch (field) {
      case 14:
        stat.user_ticks = value;
        break;
      case 15:
        stat.system_ticks = value;
        break;
      case 20:
        stat.threads = value;
        break;
      case 22:
        stat.start_ticks = value;
        break;
      case 23:
        stat.virtual_bytes = value;
        break;
      case 24:
        stat.resident_pages = value;
        return stat;
      default:
        break;
    }
  }
  return std::nullopt;
}

std::optional<double> boot_time() {
  std::ifstream file("/proc/stat");
  std::string word;
  double value = 0;
  while (file >> word) {
    if (word == "btime" && file >> value) return value;
  }
  return std::nullopt;
}

std::optional<double> open_descriptors() {
  std::error_code error;
  double count = 0;
  for (std::filesystem::directory_iterator entry("/proc/self/fd", error), end; !error && entry != end;
       entry.increment(error)) {
    ++count;
  }
  if (error) return std::nullopt;
  return count - 1;  // without the folder itself
}

}  // namespace

std::vector<prometheus::MetricFamily> ProcessCollector::Collect() const {
  std::vector<prometheus::MetricFamily> families;
  const auto add = [&](const char* name, const char* help, prometheus::MetricType type, std::optional<double> value) {
    if (!value) return;
    prometheus::ClientMetric metric;
    (type == prometheus::MetricType::Counter ? metric.counter.value : metric.gauge.value) = *value;
    families.push_back({name, help, type, {metric}});
  };
  using prometheus::MetricType;
  const double ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  if (const auto stat = read_stat()) {
    add("process_cpu_seconds_total", "User and system CPU time spent, in seconds.", MetricType::Counter,
        (stat->user_ticks + stat->system_ticks) / ticks);
    add("process_resident_memory_bytes", "Resident memory, in bytes.", MetricType::Gauge,
        stat->resident_pages * static_cast<double>(sysconf(_SC_PAGESIZE)));
    add("process_virtual_memory_bytes", "Virtual memory, in bytes.", MetricType::Gauge, stat->virtual_bytes);
    add("process_threads", "Threads.", MetricType::Gauge, stat->threads);
    if (const auto boot = boot_time()) {
      add("process_start_time_seconds", "When the process started, in seconds since the Unix epoch.", MetricType::Gauge,
          *boot + stat->start_ticks / ticks);
    }
  }
#ifdef __GLIBC__
  // Resident memory grows with what the allocator keeps for later too; only this tells a leak from it.
  const struct mallinfo2 heap = mallinfo2();
  add("process_heap_used_bytes", "Memory that the program holds of its allocator, in bytes.", MetricType::Gauge,
      static_cast<double>(heap.uordblks + heap.hblkhd));
  add("process_heap_free_bytes", "Memory that the allocator keeps for later, in bytes.", MetricType::Gauge,
      static_cast<double>(heap.fordblks));
#endif
  add("process_open_fds", "Open file descriptors.", MetricType::Gauge, open_descriptors());
  struct rlimit limit {};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
    add("process_max_fds", "File descriptors that may be open.", MetricType::Gauge,
        static_cast<double>(limit.rlim_cur));
  }
  return families;
}

}  // namespace pitcrew::net
