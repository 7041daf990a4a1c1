#include "crds/generate/change.hpp"

#include <ostream>

namespace pitcrew::crd {

Json changed(Json manifest, const Change& change) {
  const Json::json_pointer pointer(change.pointer);
  const Json value = Json::parse(change.value);
  if (value.is_null()) {
    manifest[pointer.parent_pointer()].erase(pointer.back());
  } else {
    manifest[pointer] = value;
  }
  return manifest;
}

Json problems_json(const Problems& problems) {
  Json json = Json::array();
  for (const Problem& problem : problems) json.push_back({{"path", problem.path}, {"message", problem.message}});
  return json;
}

void print_case(std::ostream& out, const std::string& name, const Json& manifest, const Problems& problems) {
  out << Json{{"name", name}, {"object", manifest}, {"problems", problems_json(problems)}}.dump() << "\n";
}

void print_changes(std::ostream& out, const Json& good, const Change* begin, const Change* end,
                   Problems (*problems_of)(const Json& manifest)) {
  print_case(out, "good", good, problems_of(good));
  for (const Change* change = begin; change != end; ++change) {
    const Json manifest = changed(good, *change);
    print_case(out, std::string(change->pointer) + " = " + change->value, manifest, problems_of(manifest));
  }
}

}  // namespace pitcrew::crd
