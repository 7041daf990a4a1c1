#include "lib/local/api/patch.hpp"

namespace pitcrew::local {

Result<Json> apply_patch(const Json& object, kube::PatchKind kind, const Json& patch) {
  switch (kind) {
    case kube::PatchKind::kMerge:
    case kube::PatchKind::kStrategic: {
      if (!patch.is_object()) return Error(Code::kInvalidArgument, "a merge patch must be an object");
      Json patched = object;
      patched.merge_patch(patch);
      return patched;
    }
    case kube::PatchKind::kJson: {
      if (!patch.is_array()) return Error(Code::kInvalidArgument, "a JSON patch must be a list of operations");
      try {
        return object.patch(patch);
      } catch (const Json::exception& error) {
        return Error(Code::kInvalidArgument, error.what());
      }
    }
    case kube::PatchKind::kApply:
      break;
  }
  return Error(Code::kUnsupported, "an apply is no patch; see apply_config()");
}

}  // namespace pitcrew::local
