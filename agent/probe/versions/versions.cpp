#include "agent/probe/versions/versions.hpp"

#include <algorithm>
#include <array>

#include "agent/probe/observation_tools.hpp"
#include "lib/base/json.hpp"

namespace pitcrew::agent::versions {
namespace {

// Package names as rpm ("libfabric-aws-2.1.0amzn5.0-1.amzn2023.x86_64") and dpkg ("libfabric1-aws_2.1.0amzn5.0_amd64")
// write them, without what comes before the version.
constexpr std::pair<std::string_view, std::string_view> kPackages[] = {
    {"libfabric-aws", "libfabric"},  {"libfabric1-aws", "libfabric"},  {"libfabric-aws-bin", "libfabric"},
    {"libnccl-ofi", "aws-ofi-nccl"}, {"aws-ofi-nccl", "aws-ofi-nccl"}, {"rdma-core", "rdma-core"},
};

// Where libraries are that came without the installer.
constexpr std::array<std::string_view, 7> kLibraryFolders = {
    "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64",         "/usr/local/lib",
    "/usr/local/cuda/lib64",     "/usr/local/cuda/lib",        "/opt/nccl/build/lib"};

void put(Versions& versions, const std::string& component, std::string_view version) {
  if (version.empty() || version.front() < '0' || version.front() > '9' || !parse_version(version)) return;
  versions.try_emplace(component, printable(version, 48));
}

}  // namespace

Versions parse_installed_packages(std::string_view text) {
  Versions versions;
  for (std::string_view line : split_lines(text, 512)) {
    constexpr std::string_view kInstaller = "EFA installer version:";
    if (const size_t at = line.find(kInstaller); at != std::string_view::npos) {
      const auto words = split_words(line.substr(at + kInstaller.size()), 1);
      if (!words.empty()) put(versions, "efa-installer", words[0]);
      continue;
    }
    for (const std::string_view word : split_words(line)) {
      for (const auto& [package, component] : kPackages) {
        if (!word.starts_with(package) || word.size() <= package.size() + 1) continue;
        const char separator = word[package.size()];
        if (separator != '-' && separator != '_') continue;
        std::string_view version = word.substr(package.size() + 1);
        version = version.substr(0, version.find_first_of("-_~"));
        put(versions, std::string(component), version);
      }
    }
  }
  return versions;
}

std::string version_in_name(std::string_view file, std::string_view library) {
  if (!file.starts_with(library) || file.size() <= library.size() + 1 || file[library.size()] != '.') return "";
  const std::string_view version = file.substr(library.size() + 1);
  // "libnccl.so.2" is a link to the file that has the whole of it.
  if (version.find('.') == std::string_view::npos || !parse_version(version)) return "";
  return printable(version, 48);
}

std::string parse_nvidia_version(std::string_view text) {
  // "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build …"
  const auto lines = split_lines(text, 1);
  for (const std::string_view word : lines.empty() ? std::vector<std::string_view>() : split_words(lines[0])) {
    const auto version = parse_version(word);
    if (version && version->numbers.size() >= 2 && word.front() >= '0' && word.front() <= '9')
      return printable(word, 48);
  }
  return "";
}

Result<std::vector<Observation>> VersionsProbe::look(Instant now) {
  Versions versions;
  const auto put_text = [&](const std::string& component, const std::string& path) {
    if (const auto text = read_text(path, 256)) put(versions, component, *text);
  };
  put_text("kernel", paths_.proc + "/sys/kernel/osrelease");
  put_text("efa-driver", paths_.sys + "/module/efa/version");
  put_text("nvidia-driver", paths_.sys + "/module/nvidia/version");
  if (const auto text = read_text(paths_.proc + "/driver/nvidia/version", 1024)) {
    put(versions, "nvidia-driver", parse_nvidia_version(*text));
  }
  if (!paths_.root.empty()) {
    const std::string root = paths_.root == "/" ? "" : paths_.root;
    if (const auto text = read_text(root + "/opt/amazon/efa_installed_packages")) {
      versions.merge(parse_installed_packages(*text));
    }
    for (const std::string_view folder : kLibraryFolders) {
      const auto library = Folder::open(root + std::string(folder));
      if (!library) continue;
      for (const std::string& file : library->entries()) put(versions, "nccl", version_in_name(file, "libnccl.so"));
    }
    if (const auto text = read_text(root + "/usr/local/cuda/version.json", 16 * 1024)) {
      const auto json = parse_json(*text);
      if (json && json->is_object() && json->contains("cuda") && json->at("cuda").is_object()) {
        const auto version = json->at("cuda").find("version");
        if (version != json->at("cuda").end() && version->is_string()) {
          put(versions, "cuda", version->get_ref<const std::string&>());
        }
      }
    }
  }
  if (versions.empty()) return std::vector<Observation>();
  Observation reading = make_reading("versions", "", now);
  for (const auto& [component, version] : versions) reading.values[component] = version;
  const auto clashes = find_clashes(versions);
  reading.values["clashes"] = static_cast<double>(clashes.size());
  for (const std::string& clash : clashes) reading.text += (reading.text.empty() ? "" : "; ") + clash;
  return std::vector<Observation>{std::move(reading)};
}

}  // namespace pitcrew::agent::versions
