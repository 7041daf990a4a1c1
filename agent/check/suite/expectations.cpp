#include "agent/check/suite/expectations.hpp"

#include "agent/probe/host.hpp"

namespace pitcrew::check {
namespace {

// Datasheet figures of a model. What is asked for is a share of them: a healthy H200 measured 4.3 of 4.8 TB/s, 769 to
// 798 of 989 TFLOP/s (cuBLAS) and 55 of 64 GB/s, so the shares below leave room for another driver, clock and kernel,
// and none for a GPU that is throttled or has lost lanes.
struct Model {
  std::string_view name;
  double memory;  // GB/s
  double tensor;  // TFLOP/s, BF16, dense
  double host;    // GB/s, each way: PCIe
};
constexpr Model kModels[] = {
    // NVIDIA's datasheets of each; A100 has PCIe 4.0 ×16 (32 GB/s), the others 5.0 ×16 (64 GB/s).
    {"A100-SXM4-40GB", 1555, 312, 32}, {"A100-SXM4-80GB", 2039, 312, 32}, {"H100", 3350, 989, 64},
    {"H200", 4800, 989, 64},           {"B200", 7700, 2250, 64},          {"L40S", 864, 362, 32},
};
constexpr double kMemoryShare = 0.75, kTensorShare = 0.55, kHostShare = 0.6;

}  // namespace

Expectations expectations_of(std::string_view gpu_model, const agent::InstanceType* machine) {
  Expectations expected;
  for (const Model& model : kModels) {
    // "NVIDIA H100 80GB HBM3" is the board of the table; "NVIDIA H100 PCIe" and "NVIDIA H100 NVL" are slower ones.
    if (gpu_model.find(model.name) == std::string_view::npos) continue;
    if (gpu_model.find("PCIe") != std::string_view::npos || gpu_model.find("NVL") != std::string_view::npos) continue;
    expected.memory_bandwidth = model.memory * kMemoryShare;
    expected.tensor_rate = model.tensor * kTensorShare;
    expected.host_bandwidth = model.host * kHostShare;
    break;
  }
  if (machine != nullptr) {
    expected.gpus = machine->gpus;
    expected.efa_devices = machine->efa_devices;
    if (machine->nvlink_bus_bandwidth > 0) expected.collective_bandwidth = machine->nvlink_bus_bandwidth;
  }
  return expected;
}

Status Expectations::set(std::string_view assignment) {
  const size_t equals = assignment.find('=');
  const auto value =
      equals == std::string_view::npos ? std::nullopt : agent::parse_number(assignment.substr(equals + 1));
  const std::string_view name = assignment.substr(0, equals);
  if (!value || *value < 0) {
    return Error(Code::kInvalidArgument, "'" + std::string(assignment) + "' is not of the form host_bandwidth=40");
  }
  struct Field {
    std::string_view name;
    std::optional<double> Expectations::*field;
  };
  constexpr Field kFields[] = {{"memory_bandwidth", &Expectations::memory_bandwidth},
                               {"tensor_rate", &Expectations::tensor_rate},
                               {"host_bandwidth", &Expectations::host_bandwidth},
                               {"collective_bandwidth", &Expectations::collective_bandwidth},
                               {"disk_bandwidth", &Expectations::disk_bandwidth}};
  std::string known;
  for (const Field& field : kFields) {
    if (field.name == name) {
      this->*field.field = *value;
      return {};
    }
    known += (known.empty() ? "" : ", ") + std::string(field.name);
  }
  return Error(Code::kInvalidArgument, "'" + std::string(name) + "' is none of: " + known);
}

}  // namespace pitcrew::check
