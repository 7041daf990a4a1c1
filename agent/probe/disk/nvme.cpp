#include "agent/probe/disk/disk.hpp"
#include "agent/probe/observation_tools.hpp"

namespace pitcrew::agent::disk {
namespace {

constexpr size_t kMaxDisks = 128;
// What EC2 calls the disks that are part of the machine.
constexpr std::string_view kInstanceStore = "Amazon EC2 NVMe Instance Storage";

// Temperature in degrees and the disk's own alarm, where the kernel has them (CONFIG_NVME_HWMON).
void read_temperature(const Folder& controller, Observation& out) {
  for (const std::string& name : controller.entries()) {
    if (!name.starts_with("hwmon")) continue;
    const auto folder = controller.folder(name);
    if (!folder) continue;
    // hwmon5 itself, or a folder hwmon with hwmon5 in it.
    const auto inner =
        name == "hwmon" && !folder->entries().empty() ? folder->folder(folder->entries()[0]) : folder->folder(".");
    if (!inner) continue;
    if (const auto millidegrees = inner->number("temp1_input")) out.values["temperature"] = *millidegrees / 1000;
    if (const auto alarm = inner->number("temp1_alarm")) out.values["alarm"] = *alarm;
    return;
  }
}

// The block layer's counters of the controller's first name space (Documentation/block/stat.rst); sectors have 512
// bytes.
void read_traffic(const HostPaths& paths, const std::string& controller, Observation& out) {
  const auto text = read_text(paths.sys + "/block/" + controller + "n1/stat", 1024);
  if (!text) return;
  const auto words = split_words(*text);
  constexpr struct {
    size_t place;
    const char* name;
    double scale;
  } kFields[] = {{0, "reads", 1},     {2, "read_bytes", 512},   {3, "read_seconds", 1e-3},
                 {4, "writes", 1},    {6, "write_bytes", 512},  {7, "write_seconds", 1e-3},
                 {8, "in_flight", 1}, {9, "busy_seconds", 1e-3}};
  for (const auto& field : kFields) {
    const auto value = field.place < words.size() ? parse_number(words[field.place]) : std::nullopt;
    if (value) out.values[field.name] = *value * field.scale;
  }
}

}  // namespace

Result<std::vector<Observation>> NvmeProbe::look(Instant now) {
  std::vector<Observation> out;
  double count = 0;
  const auto controllers = Folder::open(paths_.sys + "/class/nvme");
  if (!controllers && controllers.error().code != Code::kNotFound) return controllers.error();
  if (controllers) {
    for (const std::string& name : controllers->entries()) {
      const auto controller = controllers->folder(name);
      if (!controller) continue;
      const auto state = controller->text("state", 64);
      if (!state) continue;
      Observation disk = make_reading("nvme.disk", printable(name, 64), now);
      disk.values["state"] = printable(*state, 32);
      // A disk that is being reset is not live and may be soon; the policy says how long it may take.
      disk.values["live"] = *state == "live" ? 1.0 : 0.0;
      const auto model = controller->text("model", 128);
      if (model) disk.values["model"] = printable(*model, 64);
      const bool own = model && *model == kInstanceStore;
      if (own && *state == "live") ++count;
      read_temperature(*controller, disk);
      read_traffic(paths_, name, disk);
      if (*state != "live") disk.text = disk.device + " is " + disk.word("state");
      out.push_back(std::move(disk));
      if (out.size() == kMaxDisks) break;
    }
  }
  if (count == 0 && expected_ == 0) return out;
  Observation counted = make_reading("nvme.count", "", now);
  counted.values["count"] = count;
  if (expected_ > 0) counted.values["expected"] = static_cast<double>(expected_);
  out.push_back(std::move(counted));
  return out;
}

}  // namespace pitcrew::agent::disk
