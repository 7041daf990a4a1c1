#pragma once

#include <string>
#include <string_view>

#include "lib/kube/transport/transport.hpp"

// The answers of an API server that are not an object: metav1.Status bodies.
namespace pitcrew::local::answers {

Json status_json(int code, std::string_view reason, const std::string& message);
kube::Response status(int code, std::string_view reason, const std::string& message);
// The status that an Error of ours stands for.
kube::Response refused(const Error& error);
kube::Response not_found(const ResourceType& type, const ObjectKey& key);
kube::Response conflict(const ResourceType& type, const ObjectKey& key, const std::string& why);
kube::Response bad_request(const std::string& message);
kube::Response object(kube::Payload body, int code = 200);

}  // namespace pitcrew::local::answers
