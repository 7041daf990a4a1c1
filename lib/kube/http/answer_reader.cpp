#include "lib/kube/http/answer_reader.hpp"

#include "lib/base/version.hpp"
#include "lib/kube/http/retry_after.hpp"

namespace pitcrew::kube {

std::string default_user_agent() {
  const std::string text = version();  // "0.1.0 (commit …)"
  return "pitcrew/" + text.substr(0, text.find(' ')) + " (linux)";
}

net::HttpRequest wire_request(const Request& request, const WireIdentity& identity, const std::string& token) {
  net::HttpRequest wire;
  wire.method = method(request);
  wire.target = identity.prefix + target(request);
  wire.headers.emplace_back("User-Agent", identity.user_agent);
  wire.headers.emplace_back("Accept", "application/json");
  if (!token.empty()) wire.headers.emplace_back("Authorization", "Bearer " + token);
  if (!identity.impersonate.empty()) wire.headers.emplace_back("Impersonate-User", identity.impersonate);
  for (const std::string& group : identity.impersonate_groups) wire.headers.emplace_back("Impersonate-Group", group);
  if (!request.body.empty()) {
    wire.headers.emplace_back("Content-Type", std::string(content_type(request)));
    wire.body = request.body.text();
  }
  return wire;
}

void AnswerReader::head(int status, const net::Headers& headers, Instant now, const Logger& log) {
  response_.status = status;
  if (const std::string* after = net::find_header(headers, "Retry-After"))
    response_.retry_after = parse_retry_after(*after, now);
  for (const auto& [name, value] : headers) {
    if (name.size() == 7 && net::find_header({{name, value}}, "Warning") != nullptr)
      log.warning("the API server warns", {{"request", describe(request_)}, {"warning", value}});
  }
  if (status == 429) {
    const std::string* schema = net::find_header(headers, "X-Kubernetes-PF-FlowSchema-UID");
    log.debug("throttled by the API server",
              {{"request", describe(request_)}, {"flowSchema", schema == nullptr ? "" : *schema}});
  }
  if (status != 200 || request_.verb != Verb::kList) return;
  const JsonSlicer::Settings settings{
      .slice = JsonSlicer::Slice::kItems, .max_value_bytes = limit_, .drop_managed_fields = request_.reduce != nullptr};
  items_.emplace(settings, JsonSlicer::Sink{[this](std::string value) {
                                              Payload item = Payload::text(std::move(value));
                                              if (request_.reduce) request_.reduce(item);
                                              response_.items.push_back(std::move(item));
                                            },
                                            [this](std::string envelope) { body_ = std::move(envelope); }});
}

Status AnswerReader::piece(std::string_view bytes) {
  if (items_) return items_->feed(bytes);
  if (body_.size() + bytes.size() > limit_) {
    return Error(Code::kResourceExhausted, "the answer has more than " + std::to_string(limit_) + " bytes");
  }
  body_.append(bytes);
  return {};
}

Result<Response> AnswerReader::end() {
  if (response_.status >= 300 && response_.status < 400) {
    return Error(Code::kInvalidArgument,
                 "the server answers with a redirect (" + std::to_string(response_.status) +
                     "), which is not followed, as it would take the credentials along; give the address of the API "
                     "server itself");
  }
  if (items_ && !items_->complete()) return Error(Code::kDataLoss, "the answer ends in the middle of an object");
  if (items_ && items_->documents() != 1) return Error(Code::kDataLoss, "the answer is not one list");
  if (!body_.empty()) response_.body = Payload::text(std::move(body_));
  return std::move(response_);
}

}  // namespace pitcrew::kube
