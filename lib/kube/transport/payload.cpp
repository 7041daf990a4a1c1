#include "lib/kube/transport/payload.hpp"

#include <optional>

namespace pitcrew::kube {

struct Payload::Body {
  std::optional<Json> json;
  std::optional<std::string> text;
  std::shared_ptr<const void> decoded;
  const std::type_info* decoded_type = nullptr;
};

Payload Payload::of(Json json) {
  Payload payload;
  payload.body_ = std::make_shared<Body>();
  payload.body_->json = std::move(json);
  return payload;
}

Payload Payload::text(std::string text) {
  Payload payload;
  payload.body_ = std::make_shared<Body>();
  payload.body_->text = std::move(text);
  return payload;
}

Result<const Json*> Payload::json() const {
  if (!body_) return Error(Code::kDataLoss, "the body is empty where JSON was expected");
  if (!body_->json) {
    auto parsed = parse_json(*body_->text);
    if (!parsed) return Error(Code::kDataLoss, parsed.error().message);
    body_->json = *std::move(parsed);
  }
  return static_cast<const Json*>(&*body_->json);
}

const std::string& Payload::text() const {
  static const std::string kEmpty;
  if (!body_) return kEmpty;
  if (!body_->text) body_->text = body_->json->dump(-1, ' ', false, Json::error_handler_t::replace);
  return *body_->text;
}

Result<Json> Payload::take() && {
  auto tree = json();
  if (!tree) return tree.error();
  if (body_.use_count() > 1) return **tree;
  Json moved = std::move(*body_->json);
  body_.reset();
  return moved;
}

std::shared_ptr<const void> Payload::decoded(const std::type_info& type) const {
  if (!body_ || body_->decoded_type == nullptr || *body_->decoded_type != type) return nullptr;
  return body_->decoded;
}

void Payload::remember(const std::type_info& type, std::shared_ptr<const void> value) const {
  body_->decoded_type = &type;
  body_->decoded = std::move(value);
}

}  // namespace pitcrew::kube
