#include "trainer/checkpoint/s3/credentials.hpp"

#include "lib/base/file.hpp"
#include "lib/base/json.hpp"
#include "trainer/checkpoint/s3/xml.hpp"

namespace pitcrew::trainer::s3 {
namespace {

constexpr uint64_t kMaxToken = 64 * 1024;

constexpr char kNoKeys[] =
    "there are no AWS credentials in the environment; give the pod's service account an IAM role (EKS Pod Identity, or "
    "the annotation eks.amazonaws.com/role-arn), or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY from a Secret";

Result<std::string> read_token(const std::string& variable, const std::string& file) {
  auto token = read_file(posix_file_system(), file, kMaxToken);
  if (!token) return Error(Code::kUnauthenticated, variable + ": " + token.error().message);
  while (!token->empty() && (token->back() == '\n' || token->back() == ' ')) token->pop_back();
  return token;
}

// The variable's address is asked with a secret: by plain HTTP only on this machine and at the agents of EKS and ECS.
bool may_ask(const Endpoint& endpoint) {
  if (endpoint.scheme == "https") return true;
  const std::string host = endpoint.host.starts_with('[') ? endpoint.host.substr(0, endpoint.host.find(']') + 1)
                                                          : endpoint.host.substr(0, endpoint.host.find(':'));
  return host == "localhost" || host.starts_with("127.") || host == "[::1]" || host == "169.254.170.2" ||
         host == "169.254.170.23" || host == "[fd00:ec2::23]";
}

Error answer_error(const std::string& what, const HttpAnswer& answer, const std::string& detail) {
  const bool later = answer.status >= 500 || answer.status == 429;
  return {later ? Code::kUnavailable : Code::kUnauthenticated,
          what + ": HTTP " + std::to_string(answer.status) + (detail.empty() ? "" : ", " + detail)};
}

}  // namespace

Result<Keys> Credentials::keys() {
  if (const std::string id = variables_("AWS_ACCESS_KEY_ID"); !id.empty()) {
    const std::string secret = variables_("AWS_SECRET_ACCESS_KEY");
    if (secret.empty())
      return Error(Code::kUnauthenticated, "AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not; set both");
    return Keys{id, secret, variables_("AWS_SESSION_TOKEN")};
  }
  const std::lock_guard lock(mutex_);
  const Instant now = clock_.now();
  if (held_ && now + kEarly < held_->end) return held_->keys;
  const bool usable = held_ && now < held_->end;
  if (usable && now < next_try_) return held_->keys;
  auto fetched = fetch();
  if (fetched) {
    held_ = std::move(*fetched);
    return held_->keys;
  }
  next_try_ = now + kTryAgain;
  if (usable) return held_->keys;
  return fetched.error();
}

void Credentials::refused(const Keys& keys) {
  const std::lock_guard lock(mutex_);
  if (held_ && held_->keys.token == keys.token) held_.reset();
}

Result<Credentials::Temporary> Credentials::fetch() {
  if (!variables_("AWS_WEB_IDENTITY_TOKEN_FILE").empty() && !variables_("AWS_ROLE_ARN").empty()) return assume_role();
  if (!variables_("AWS_CONTAINER_CREDENTIALS_FULL_URI").empty()) return ask_container();
  return Error(Code::kUnauthenticated, kNoKeys);
}

Result<Credentials::Temporary> Credentials::assume_role() {
  PITCREW_ASSIGN(const std::string token,
                 read_token("AWS_WEB_IDENTITY_TOKEN_FILE", variables_("AWS_WEB_IDENTITY_TOKEN_FILE")));
  const std::string role = variables_("AWS_ROLE_ARN");
  std::string url = variables_("AWS_ENDPOINT_URL_STS");
  if (url.empty()) url = "https://sts." + region_ + "." + dns_suffix(region_);
  PITCREW_ASSIGN(const Endpoint endpoint, parse_endpoint(url, "AWS_ENDPOINT_URL_STS"));
  std::string session = variables_("AWS_ROLE_SESSION_NAME");
  if (session.empty()) session = "pitcrew-train";
  const std::string body = canonical_query({{"Action", "AssumeRoleWithWebIdentity"},
                                            {"Version", "2011-06-15"},
                                            {"RoleArn", role},
                                            {"RoleSessionName", session},
                                            {"WebIdentityToken", token}});
  const std::string what = "assume the role " + role;
  const auto answer = http_.send({.method = "POST",
                                  .url = endpoint.url() + endpoint.path + "/",
                                  .headers = {{"content-type", "application/x-www-form-urlencoded"}},
                                  .body = std::as_bytes(std::span(body))});
  if (!answer) return answer.error().with_context(what);
  if (answer->status != 200) {
    const std::string code = element_text(answer->body, "Code");
    std::string detail = code + ": " + element_text(answer->body, "Message");
    if (code == "AccessDenied")
      detail += " (the role's trust policy must allow this cluster's OIDC provider and this service account)";
    return answer_error(what, *answer, detail);
  }
  Temporary temporary{{element_text(answer->body, "AccessKeyId"), element_text(answer->body, "SecretAccessKey"),
                       element_text(answer->body, "SessionToken")},
                      {}};
  const auto end = parse_rfc3339(element_text(answer->body, "Expiration"));
  if (temporary.keys.id.empty() || temporary.keys.secret.empty() || !end)
    return Error(Code::kUnauthenticated, what + ": the answer holds no keys");
  temporary.end = *end;
  return temporary;
}

Result<Credentials::Temporary> Credentials::ask_container() {
  const std::string variable = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
  const std::string url = variables_(variable.c_str());
  PITCREW_ASSIGN(const Endpoint endpoint, parse_endpoint(url, variable));
  if (!may_ask(endpoint)) {
    return Error(Code::kUnauthenticated,
                 variable + ": " + url + " is neither https nor an address of this machine or of EKS's agent");
  }
  std::string token = variables_("AWS_CONTAINER_AUTHORIZATION_TOKEN");
  if (const std::string file = variables_("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"); !file.empty()) {
    PITCREW_ASSIGN(token, read_token("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file));
  }
  HttpRequest request{.method = "GET", .url = url, .direct = true};
  if (!token.empty()) request.headers["authorization"] = token;
  const std::string what = "ask EKS Pod Identity for credentials";
  const auto answer = http_.send(request);
  if (!answer) return answer.error().with_context(what);
  if (answer->status != 200) return answer_error(what, *answer, answer->body.substr(0, 300));
  const auto json = parse_json(answer->body);
  if (!json || !json->is_object()) return Error(Code::kUnauthenticated, what + ": the answer is no JSON object");
  const auto text = [&](const char* key) {
    return json->contains(key) && (*json)[key].is_string() ? (*json)[key].get<std::string>() : std::string();
  };
  Temporary temporary{{text("AccessKeyId"), text("SecretAccessKey"), text("Token")}, {}};
  const auto end = parse_rfc3339(text("Expiration"));
  if (temporary.keys.id.empty() || temporary.keys.secret.empty() || !end)
    return Error(Code::kUnauthenticated, what + ": the answer holds no keys");
  temporary.end = *end;
  return temporary;
}

}  // namespace pitcrew::trainer::s3
