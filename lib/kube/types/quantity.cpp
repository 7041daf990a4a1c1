#include "lib/kube/types/quantity.hpp"

#include <array>
#include <limits>

namespace pitcrew::kube {
namespace {

__extension__ using Wide = __int128;

struct Suffix {
  std::string_view name;
  int64_t numerator;  // of thousandths
  int64_t denominator;
};

// Quantity's suffixes (k8s.io/apimachinery api/resource); the binary ones stand before their decimal namesakes.
constexpr std::array<Suffix, 16> kSuffixes{{{"Ki", 1000ll << 10, 1},
                                            {"Mi", 1000ll << 20, 1},
                                            {"Gi", 1000ll << 30, 1},
                                            {"Ti", 1000ll << 40, 1},
                                            {"Pi", 1000ll << 50, 1},
                                            {"n", 1, 1'000'000},
                                            {"u", 1, 1'000},
                                            {"m", 1, 1},
                                            {"k", 1'000'000, 1},
                                            {"M", 1'000'000'000, 1},
                                            {"G", 1'000'000'000'000, 1},
                                            {"T", 1'000'000'000'000'000, 1},
                                            {"P", 1'000'000'000'000'000'000, 1},
                                            {"e3", 1'000'000, 1},
                                            {"e6", 1'000'000'000, 1},
                                            {"e9", 1'000'000'000'000, 1}}};

Error bad_quantity(std::string_view text) {
  return Error(Code::kInvalidArgument,
               "'" + std::string(text) + "' is not a quantity; write it like 500m, 8, 1.5, 16Gi or 100G");
}

}  // namespace

Result<int64_t> parse_quantity(std::string_view text) {
  size_t at = 0;
  const bool negative = !text.empty() && text[0] == '-';
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) ++at;
  Wide number = 0;
  Wide scale = 1;
  bool fraction = false;
  size_t digits = 0;
  for (; at < text.size() && ((text[at] >= '0' && text[at] <= '9') || (text[at] == '.' && !fraction)); ++at) {
    if (text[at] == '.') {
      fraction = true;
      continue;
    }
    if (++digits > 18) return bad_quantity(text);
    number = number * 10 + (text[at] - '0');
    if (fraction) scale *= 10;
  }
  if (digits == 0) return bad_quantity(text);
  const std::string_view suffix = text.substr(at);
  Wide thousandths = number * 1000;
  if (!suffix.empty()) {
    bool known = false;
    for (const Suffix& candidate : kSuffixes) {
      if (candidate.name != suffix) continue;
      thousandths = number * candidate.numerator;
      scale *= candidate.denominator;
      known = true;
      break;
    }
    if (!known) return bad_quantity(text);
  }
  // Rounded up, as Kubernetes does.
  thousandths = (thousandths + scale - 1) / scale;
  if (thousandths > std::numeric_limits<int64_t>::max()) return bad_quantity(text);
  const auto value = static_cast<int64_t>(thousandths);
  return negative ? -value : value;
}

std::string format_quantity(int64_t thousandths) {
  if (thousandths % 1000 == 0) return std::to_string(thousandths / 1000);
  return std::to_string(thousandths) + "m";
}

void add_quantities(const Json& json, Resources& out) {
  if (!json.is_object()) return;
  for (auto entry = json.begin(); entry != json.end(); ++entry) {
    if (entry->is_number_integer()) {
      out[entry.key()] += entry->get<int64_t>() * 1000;
    } else if (entry->is_string()) {
      if (auto amount = parse_quantity(entry->get_ref<const std::string&>())) out[entry.key()] += *amount;
    }
  }
}

Json quantities_json(const Resources& resources) {
  Json json = Json::object();
  for (const auto& [name, amount] : resources) json[name] = format_quantity(amount);
  return json;
}

}  // namespace pitcrew::kube
