#include <cstring>
#include <iostream>

#include "crds/generate/cases.hpp"
#include "crds/generate/definition.hpp"
#include "crds/generate/yaml.hpp"

namespace {

constexpr char kUsage[] = R"(usage: pitcrew-crd crds
       pitcrew-crd crd KIND
       pitcrew-crd cases KIND [MANIFEST…]

crds    prints the kinds, one a line: trainingjob, …
crd     prints a kind's CustomResourceDefinition
cases   prints, one JSON object a line, manifests and updates with all that lib/api finds wrong with them: the given
        files, and those that break each limit of the schema; crds/check holds an API server's rules against it
)";

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::strcmp(argv[1], "crds") == 0) {
    for (const auto& definition : pitcrew::crd::definitions()) std::cout << definition.file << "\n";
    return 0;
  }
  if (argc == 3 && std::strcmp(argv[1], "crd") == 0) {
    for (const auto& definition : pitcrew::crd::definitions()) {
      if (definition.file == argv[2]) {
        std::cout << pitcrew::crd::to_file(definition.make());
        return 0;
      }
    }
  }
  if (argc >= 3 && std::strcmp(argv[1], "cases") == 0) {
    return pitcrew::crd::print_cases(argv[2], {argv + 3, argv + argc}, std::cout, std::cerr);
  }
  std::cerr << kUsage;
  return 2;
}
