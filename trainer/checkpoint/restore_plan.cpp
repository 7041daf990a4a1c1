#include "trainer/checkpoint/restore_plan.hpp"

#include <algorithm>
#include <set>

namespace pitcrew::trainer {
namespace {

std::string base_name(const std::string& path) { return path.substr(path.rfind('/') + 1); }

// The copies that are read: of the kind that goes first, else whatever there is; a remote one only where there is no
// other.
std::vector<FileCopy> preferred(const Candidate& candidate, const std::string& file) {
  const auto found = candidate.files.find(file);
  if (found == candidate.files.end()) return {};
  const auto pick = [&](auto wanted) {
    std::vector<FileCopy> picked;
    std::copy_if(found->second.begin(), found->second.end(), std::back_inserter(picked), wanted);
    return picked;
  };
  auto first = pick([&](const FileCopy& copy) { return !copy.remote && copy.own != candidate.peers_first; });
  if (first.empty()) first = pick([](const FileCopy& copy) { return !copy.remote; });
  return first.empty() ? found->second : first;
}

}  // namespace

std::string Candidate::describe() const {
  return to_string(name) + (place == Place::kDurable ? " (durable)" : peers_first ? " (peers' memory)" : " (memory)");
}

Json to_json(const Holdings& holdings) {
  Json remote = Json::array();
  for (const auto& other : holdings.remote) remote.push_back({{"slot", other.slot.value}, {"paths", other.paths}});
  return {{"slot", holdings.slot.value},
          {"memory", holdings.memory},
          {"durable", holdings.durable},
          {"remote", std::move(remote)}};
}

Result<Holdings> parse_holdings(const Json& json) {
  Problems problems;
  ObjectReader reader(json, "", problems);
  Holdings holdings;
  reader.read("slot", holdings.slot);
  reader.read("durable", holdings.durable);
  if (auto memory = reader.object("memory")) {
    for (const auto& [name, paths] : json["memory"].items()) memory->read(name, holdings.memory[name]);
  }
  reader.each("remote", [&](const Json& other, const std::string& path) {
    ObjectReader fields(other, path, problems);
    fields.read("slot", holdings.remote.emplace_back().slot);
    fields.read("paths", holdings.remote.back().paths);
  });
  if (!problems.empty()) return Error(Code::kInternal, "what a rank says it holds: " + join(problems));
  return holdings;
}

std::vector<Candidate> find_candidates(const std::vector<Holdings>& all) {
  std::map<CheckpointName, Candidate> memory;
  const auto candidate_of = [&](const std::string& folder) -> Candidate* {
    const auto name = parse_checkpoint_name(folder);
    if (!name) return nullptr;
    Candidate& candidate = memory[*name];
    candidate.name = *name;
    candidate.place = Place::kMemory;
    return &candidate;
  };
  for (uint32_t lister = 0; lister < all.size(); ++lister) {
    for (const auto& [folder, paths] : all[lister].memory) {
      Candidate* candidate = candidate_of(folder);
      if (candidate == nullptr) continue;
      for (const std::string& path : paths) {
        const bool own = path.starts_with("own/");
        const std::string file = base_name(path);
        if (file == kManifestFile) {
          if (own && candidate->manifest_path.empty()) {
            candidate->manifest_rank = lister;
            candidate->manifest_path = path;
          }
          continue;
        }
        // All ranks of a replica see the same folder.
        for (uint32_t rank = 0; rank < all.size(); ++rank) {
          if (all[rank].slot == all[lister].slot)
            candidate->files[file].push_back({rank, path, false, all[rank].slot, own});
        }
      }
    }
  }
  for (const auto& remote : all.empty() ? std::vector<Holdings::Remote>{} : all[0].remote) {
    for (const std::string& path : remote.paths) {
      const std::string folder = base_name(path.substr(0, path.rfind('/')));
      const std::string file = base_name(path);
      Candidate* candidate = candidate_of(folder);
      if (candidate == nullptr || file == kManifestFile) continue;
      for (uint32_t rank = 0; rank < all.size(); ++rank)
        candidate->files[file].push_back({rank, path, true, remote.slot, false});
    }
  }

  std::vector<Candidate> candidates;
  for (auto& [name, candidate] : memory) {
    if (candidate.manifest_path.empty()) continue;  // it was never complete
    const bool two_kinds = std::any_of(candidate.files.begin(), candidate.files.end(), [](const auto& file) {
      const auto own = [](const FileCopy& copy) { return copy.own; };
      return std::any_of(file.second.begin(), file.second.end(), own) &&
             !std::all_of(file.second.begin(), file.second.end(), own);
    });
    candidates.push_back(candidate);
    if (!two_kinds) continue;
    candidates.push_back(candidate);
    candidates.back().peers_first = true;
  }
  for (const std::string& folder : all.empty() ? std::vector<std::string>{} : all[0].durable) {
    if (const auto name = parse_checkpoint_name(folder)) {
      candidates.push_back({.name = *name, .place = Place::kDurable, .manifest_path = folder + "/" + kManifestFile});
      candidates.back().files[""].push_back({.path = folder});
    }
  }
  const auto order = [](const Candidate& c) { return std::tuple(c.place == Place::kDurable, c.peers_first); };
  std::stable_sort(candidates.begin(), candidates.end(), [&](const Candidate& a, const Candidate& b) {
    return a.name != b.name ? a.name > b.name : order(a) < order(b);
  });
  return candidates;
}

std::string missing_file(const Candidate& candidate, const Manifest& manifest) {
  if (candidate.place == Place::kDurable) return "";
  for (const auto& file : manifest.files) {
    if (!candidate.files.contains(file.name)) return file.name;
  }
  return "";
}

bool only_own(const Candidate& candidate, const Manifest& manifest) {
  return std::all_of(manifest.files.begin(), manifest.files.end(), [&](const auto& file) {
    const auto copies = preferred(candidate, file.name);
    return std::all_of(copies.begin(), copies.end(), [](const FileCopy& copy) { return copy.own; });
  });
}

std::vector<std::vector<ReadUnit>> plan_reads(const Candidate& candidate, const Manifest& manifest, uint32_t ranks,
                                              uint64_t largest) {
  // Units in the order of the files, so that each rank reads runs.
  std::vector<std::vector<ReadUnit>> of_file(manifest.files.size());
  for (size_t f = 0; f < manifest.files.size(); ++f) of_file[f].push_back({.file = f, .header = true});
  for (size_t t = 0; t < manifest.tensors.size(); ++t) {
    const auto& tensor = manifest.tensors[t];
    for (size_t p = 0; p < tensor.parts.size(); ++p) {
      const auto& part = tensor.parts[p];
      const uint64_t bytes = part.count * size_of(tensor.dtype);
      for (uint64_t at = 0; at < bytes; at += largest) {
        of_file[part.file].push_back({.file = part.file,
                                      .tensor = t,
                                      .part = p,
                                      .first_chunk = at / kChunkBytes,
                                      .bytes = std::min(largest, bytes - at)});
      }
    }
  }
  uint64_t total = 0;
  std::vector<uint64_t> file_total(of_file.size());
  for (size_t f = 0; f < of_file.size(); ++f) {
    const auto offset = [&](const ReadUnit& unit) {
      return unit.header ? 0 : manifest.tensors[unit.tensor].parts[unit.part].offset + unit.first_chunk * kChunkBytes;
    };
    std::sort(of_file[f].begin(), of_file[f].end(),
              [&](const ReadUnit& a, const ReadUnit& b) { return offset(a) < offset(b); });
    for (const ReadUnit& unit : of_file[f]) file_total[f] += unit.bytes;
    total += file_total[f];
  }

  std::vector<std::vector<ReadUnit>> plan(ranks);
  uint64_t before = 0;  // bytes dealt so far
  for (size_t f = 0; f < of_file.size(); ++f) {
    std::vector<FileCopy> copies =
        candidate.place == Place::kDurable ? std::vector<FileCopy>{} : preferred(candidate, manifest.files[f].name);
    uint64_t in_file = 0;
    for (ReadUnit& unit : of_file[f]) {
      uint32_t reader = 0;
      if (copies.empty()) {
        reader = total == 0 ? 0 : static_cast<uint32_t>(static_cast<unsigned __int128>(before) * ranks / total);
        reader = std::min(reader, ranks - 1);
        unit.path = to_string(candidate.name);
        if (const auto durable = candidate.files.find(""); durable != candidate.files.end())
          unit.path = durable->second[0].path;
        unit.path += "/" + manifest.files[f].name;
      } else {
        const size_t index =
            file_total[f] == 0
                ? 0
                : static_cast<size_t>(static_cast<unsigned __int128>(in_file) * copies.size() / file_total[f]);
        const FileCopy& copy = copies[std::min(index, copies.size() - 1)];
        reader = copy.rank;
        unit.path = copy.path;
        unit.remote = copy.remote;
        unit.slot = copy.slot;
      }
      before += unit.bytes;
      in_file += unit.bytes;
      plan[reader].push_back(unit);
    }
  }
  return plan;
}

}  // namespace pitcrew::trainer
