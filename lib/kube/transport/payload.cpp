#include "lib/kube/transport/payload.hpp"

#include <optional>

#include "lib/kube/types/fields.hpp"

namespace pitcrew::kube {

struct Payload::Body {
  std::optional<Json> json;
  std::optional<std::string> text;
  std::shared_ptr<const void> decoded;
  const std::type_info* decoded_type = nullptr;
  std::string version;  // where only the decoded struct is left
  bool reduced = false;
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
  if (body_->reduced) return Error(Code::kInternal, "only the decoded struct of this object was kept");
  if (!body_->json) {
    auto parsed = parse_json(*body_->text);
    if (!parsed) return Error(Code::kDataLoss, parsed.error().message);
    body_->json = *std::move(parsed);
  }
  return static_cast<const Json*>(&*body_->json);
}

const std::string& Payload::text() const {
  static const std::string kEmpty;
  if (!body_ || body_->reduced) return kEmpty;
  if (!body_->text) body_->text = body_->json->dump(-1, ' ', false, Json::error_handler_t::replace);
  return *body_->text;
}

std::string Payload::resource_version() const {
  std::string version;
  if (body_ && body_->reduced) return body_->version;
  auto tree = json();
  if (!tree) return version;
  if (const Json* metadata = fields::find(**tree, "metadata")) fields::read(*metadata, "resourceVersion", version);
  return version;
}

Result<Json> Payload::take() && {
  auto tree = json();
  if (!tree) return tree.error();
  if (body_.use_count() > 1) return **tree;
  Json moved = std::move(*body_->json);
  body_.reset();
  return moved;
}

bool Payload::only_text() const { return body_ && !body_->reduced && !body_->json; }

Result<Json> Payload::select(const JsonSelection& selection) const {
  auto parsed = parse_json(*body_->text, selection);
  if (!parsed) return Error(Code::kDataLoss, parsed.error().message);
  return parsed;
}

void Payload::let_go(const std::string& resource_version) const {
  body_->json.reset();
  body_->text.reset();
  body_->version = resource_version;
  body_->reduced = true;
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
