#include "trainer/checkpoint/s3/client.hpp"

#include <charconv>
#include <random>

#include "lib/base/digest.hpp"
#include "trainer/checkpoint/s3/xml.hpp"

namespace pitcrew::trainer::s3 {
namespace {

// "Processing of a CompleteMultipartUpload request could take several minutes" (Amazon S3 API Reference).
constexpr Duration kPutTogether = minutes(5);
constexpr char kWriter[] = "x-amz-meta-pitcrew-writer";

bool tried_again(const HttpAnswer& answer, const std::string& code) {
  if (answer.status == 501) return false;  // the server lacks it
  if (answer.status >= 500 || answer.status == 429 || answer.status == 408) return true;
  // 409 of a conditional put: another request for the same key is under way.
  return code == "RequestTimeout" || code == "ConditionalRequestConflict" || code == "OperationAborted" ||
         code == "SlowDown";
}

bool is_slow_down(const HttpAnswer& answer, const std::string& code) {
  return answer.status == 503 || answer.status == 429 || code == "SlowDown";
}

bool is_expired(const std::string& code) { return code == "ExpiredToken" || code == "ExpiredTokenException"; }

Duration retry_after(const HttpAnswer& answer) {
  const auto found = answer.headers.find("retry-after");
  uint32_t wait = 0;
  if (found != answer.headers.end()) {
    const std::string& text = found->second;
    std::from_chars(text.data(), text.data() + text.size(), wait);
  }
  return seconds(std::min(wait, 60u));
}

std::string tag_of(const HttpAnswer& answer) {
  const auto found = answer.headers.find("etag");
  return found == answer.headers.end() ? std::string() : found->second;
}

uint64_t number_of(const std::string& text) {
  uint64_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

}  // namespace

Client::Client(Location location, Variables variables, const Clock& clock, Settings settings)
    : location_(std::move(location)),
      clock_(clock),
      settings_(settings),
      http_(settings.http),
      credentials_(std::move(variables), location_.region, http_, clock),
      pacer_(settings.seed) {}

void Client::abort() {
  http_.abort();
  changed_.notify_all();
}

Status Client::pause(Duration time) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, time, [&] { return http_.aborted(); });
  if (http_.aborted()) return Error(Code::kCancelled, location_.path + ": it was ended");
  return {};
}

std::string Client::name_of(const Request& request) const {
  if (request.key.empty()) return location_.path;
  return "s3://" + location_.bucket + "/" + request.key;
}

void Client::encrypt(std::map<std::string, std::string>& headers) const {
  if (!location_.encrypt) return;
  headers["x-amz-server-side-encryption"] = "aws:kms";
  if (!location_.kms_key.empty()) headers["x-amz-server-side-encryption-aws-kms-key-id"] = location_.kms_key;
}

Result<HttpAnswer> Client::attempt(const Request& request, const std::string& payload_digest, Keys& used) {
  PITCREW_ASSIGN(used, credentials_.keys());
  SignedRequest to_sign{request.method, location_.root + request.key, request.query, request.headers, payload_digest};
  if (request.key.empty() && to_sign.path.size() > 1 && to_sign.path.ends_with('/')) to_sign.path.pop_back();
  to_sign.headers["host"] = location_.endpoint.host;
  const auto added = sign(to_sign, used, location_.region, "s3", clock_.now());
  HttpRequest http{.method = request.method,
                   .url = location_.endpoint.url() + encode_uri(to_sign.path, true),
                   .headers = to_sign.headers,
                   .body = request.body,
                   .quiet_for = request.quiet_for,
                   .into = request.into};
  http.headers.insert(added.begin(), added.end());
  if (const std::string query = canonical_query(request.query); !query.empty()) http.url += "?" + query;
  return http_.send(http);
}

Result<Client::Answer> Client::send(const Request& request) {
  const std::string digest = sha256_hex(request.body);
  const Instant until = clock_.now() + settings_.give_up_after;
  bool renewed = false;
  for (int number = 1;; ++number) {
    Duration turn;
    {
      const std::lock_guard lock(mutex_);
      turn = pacer_.turn(clock_.now());
    }
    if (turn > Duration{0}) PITCREW_TRY(pause(turn));
    Keys used;
    auto answer = attempt(request, digest, used);
    Duration wait{0};
    bool again = !answer && answer.error().code == Code::kUnavailable;
    if (answer) {
      if (answer->status / 100 == 2) {
        const std::lock_guard lock(mutex_);
        pacer_.succeeded();
        return Answer{std::move(*answer), number};
      }
      const std::string code = element_text(answer->body, "Code");
      again = tried_again(*answer, code);
      wait = retry_after(*answer);
      if (is_expired(code) && !renewed) {
        renewed = again = true;
        credentials_.refused(used);
      }
      const std::lock_guard lock(mutex_);
      if (is_slow_down(*answer, code)) pacer_.slow_down();
    }
    const Error error = answer ? refusal(request, *answer) : answer.error().with_context(name_of(request));
    if (!again) {
      if (answer) return Answer{std::move(*answer), number};
      return error;
    }
    {
      const std::lock_guard lock(mutex_);
      wait = std::max(wait, pacer_.before_retry(number));
    }
    if (number >= settings_.attempts || clock_.now() + wait > until) {
      return Error(error.code == Code::kUnauthenticated ? error.code : Code::kUnavailable,
                   error.message + "; given up after " + std::to_string(number) + " attempts");
    }
    PITCREW_TRY(pause(wait));
  }
}

// What an answer that is no success means, with the remedy where there is one.
Error Client::refusal(const Request& request, const HttpAnswer& answer) const {
  const std::string code = element_text(answer.body, "Code");
  const std::string said = element_text(answer.body, "Message");
  std::string message = request.method + " " + name_of(request) + ": HTTP " + std::to_string(answer.status);
  if (!code.empty()) message += " " + code;
  if (!said.empty()) message += ": " + said;
  const auto region = answer.headers.find("x-amz-bucket-region");
  const bool elsewhere = region != answer.headers.end() && region->second != location_.region;
  if (elsewhere && (answer.status == 301 || answer.status == 307 || answer.status == 400)) {
    return {Code::kInvalidArgument, message + "; the bucket is in " + region->second + " and AWS_REGION says " +
                                        location_.region + ": set AWS_REGION=" + region->second};
  }
  if (code == "NoSuchBucket")
    return {Code::kInvalidArgument, message + "; make the bucket, or correct checkpoint.path"};
  if (code == "InvalidAccessKeyId" || code == "SignatureDoesNotMatch" || code == "InvalidToken" || is_expired(code))
    return {Code::kUnauthenticated, message + "; the AWS credentials of the pod are wrong or have expired"};
  if (code == "RequestTimeTooSkewed")
    return {Code::kUnauthenticated, message + "; this node's clock is wrong: repair its time synchronization (chrony)"};
  if (code.starts_with("KMS."))
    return {Code::kForbidden, message + "; the KMS key must be enabled and allow kms:GenerateDataKey and kms:Decrypt"};
  if (answer.status == 403) {
    return {Code::kForbidden, message +
                                  "; the role of the pod's service account needs the actions of docs/checkpoints-s3.md "
                                  "on this bucket and prefix, and kms:GenerateDataKey and kms:Decrypt on its key"};
  }
  if (answer.status == 404) return {Code::kNotFound, message};
  if (answer.status == 412) return {Code::kAlreadyExists, message};
  if (answer.status == 501)
    return {Code::kUnsupported,
            message + "; the server at " + location_.endpoint.host + " lacks what checkpoints need"};
  return {answer.status >= 500 ? Code::kUnavailable : Code::kInvalidArgument, message};
}

Status Client::put(const std::string& key, std::span<const std::byte> content) {
  Request request{.method = "PUT", .key = key, .body = content};
  encrypt(request.headers);
  PITCREW_ASSIGN(const Answer answer, send(request));
  if (answer.http.status / 100 != 2) return refusal(request, answer.http);
  return {};
}

Status Client::create(const std::string& key, std::span<const std::byte> content) {
  // Where an answer gets lost, the next attempt finds an object: ours, or another's?
  std::random_device random;
  const std::string mark = hex64((uint64_t{random()} << 32) | random()) + hex64((uint64_t{random()} << 32) | random());
  Request request{.method = "PUT", .key = key, .headers = {{"if-none-match", "*"}, {kWriter, mark}}, .body = content};
  encrypt(request.headers);
  const auto answer = send(request);
  if (!answer) return answer.error();
  if (answer->http.status / 100 == 2) return {};
  if (answer->http.status == 412 && answer->attempts > 1) {
    const Request look{.method = "HEAD", .key = key};
    PITCREW_ASSIGN(const Answer there, send(look));
    const auto writer = there.http.headers.find(kWriter);
    if (writer != there.http.headers.end() && writer->second == mark) return {};
  }
  return refusal(request, answer->http);
}

Result<Client::Object> Client::head(const std::string& key) {
  const Request request{.method = "HEAD", .key = key};
  PITCREW_ASSIGN(const Answer answer, send(request));
  if (answer.http.status / 100 != 2) return refusal(request, answer.http);
  const auto length = answer.http.headers.find("content-length");
  return Object{key, length == answer.http.headers.end() ? 0 : number_of(length->second), tag_of(answer.http)};
}

Status Client::get(const Object& object, uint64_t offset, std::span<std::byte> into) {
  if (into.empty()) return {};
  Request request{
      .method = "GET",
      .key = object.key,
      .headers = {{"range", "bytes=" + std::to_string(offset) + "-" + std::to_string(offset + into.size() - 1)}},
      .into = into};
  if (!object.tag.empty()) request.headers["if-match"] = object.tag;
  PITCREW_ASSIGN(const Answer answer, send(request));
  if (answer.http.status == 412) {
    return Error(Code::kDataLoss, name_of(request) + ": it was replaced while it was read");
  }
  if (answer.http.status / 100 != 2) return refusal(request, answer.http);
  return {};
}

Result<std::string> Client::get(const std::string& key, uint64_t limit) {
  PITCREW_ASSIGN(const Object object, head(key));
  if (object.bytes > limit) {
    return Error(Code::kResourceExhausted, "s3://" + location_.bucket + "/" + key + ": it has " +
                                               std::to_string(object.bytes) + " bytes, more than the " +
                                               std::to_string(limit) + " that are expected");
  }
  std::string content(object.bytes, '\0');
  PITCREW_TRY(get(object, 0, std::as_writable_bytes(std::span(content))));
  return content;
}

Status Client::remove(const std::string& key) {
  const Request request{.method = "DELETE", .key = key};
  PITCREW_ASSIGN(const Answer answer, send(request));
  if (answer.http.status / 100 != 2 && answer.http.status != 404) return refusal(request, answer.http);
  return {};
}

Result<Client::Listing> Client::list(const std::string& prefix, bool recursive) {
  Listing listing;
  std::string token;
  do {
    Request request{.method = "GET", .key = "", .query = {{"list-type", "2"}, {"prefix", prefix}}};
    request.query.emplace_back("max-keys", std::to_string(settings_.page));
    if (!recursive) request.query.emplace_back("delimiter", "/");
    if (!token.empty()) request.query.emplace_back("continuation-token", token);
    PITCREW_ASSIGN(const Answer answer, send(request));
    if (answer.http.status != 200) return refusal(request, answer.http);
    const std::string& xml = answer.http.body;
    for (const auto object : elements(xml, "Contents"))
      listing.objects.push_back({element_text(object, "Key"), number_of(element_text(object, "Size")), {}});
    for (const auto folder : elements(xml, "CommonPrefixes")) listing.folders.push_back(element_text(folder, "Prefix"));
    token = element_text(xml, "IsTruncated") == "true" ? element_text(xml, "NextContinuationToken") : "";
  } while (!token.empty());
  return listing;
}

Result<std::string> Client::begin_parts(const std::string& key) {
  Request request{.method = "POST", .key = key, .query = {{"uploads", ""}}};
  encrypt(request.headers);
  PITCREW_ASSIGN(const Answer answer, send(request));
  if (answer.http.status / 100 != 2) return refusal(request, answer.http);
  std::string upload = element_text(answer.http.body, "UploadId");
  if (upload.empty()) return Error(Code::kInternal, name_of(request) + ": the server named no upload");
  return upload;
}

Result<Client::Part> Client::put_part(const std::string& key, const std::string& upload, int number,
                                      std::span<const std::byte> content) {
  const Request request{.method = "PUT",
                        .key = key,
                        .query = {{"partNumber", std::to_string(number)}, {"uploadId", upload}},
                        .body = content};
  PITCREW_ASSIGN(const Answer answer, send(request));
  if (answer.http.status / 100 != 2) return refusal(request, answer.http);
  return Part{number, tag_of(answer.http)};
}

Status Client::complete_parts(const std::string& key, const std::string& upload, const std::vector<Part>& parts,
                              uint64_t bytes) {
  std::string body = "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">";
  for (const Part& part : parts) {
    body += "<Part><PartNumber>" + std::to_string(part.number) + "</PartNumber><ETag>" + escape_xml(part.tag) +
            "</ETag></Part>";
  }
  body += "</CompleteMultipartUpload>";
  const Request request{.method = "POST",
                        .key = key,
                        .query = {{"uploadId", upload}},
                        .headers = {{"content-type", "application/xml"}},
                        .body = std::as_bytes(std::span(body)),
                        .quiet_for = kPutTogether};
  for (int number = 1;; ++number) {
    PITCREW_ASSIGN(const Answer answer, send(request));
    // S3 begins its answer before it knows how it ends: 200 with an error inside.
    const std::string inside = element_text(answer.http.body, "Code");
    if (answer.http.status / 100 == 2 && inside.empty()) return {};
    if (answer.http.status / 100 != 2) {
      // Where the first answer got lost, the upload is gone because it is complete.
      if (inside == "NoSuchUpload" && answer.attempts + number > 2) {
        const auto there = head(key);
        if (there && there->bytes == bytes) return {};
      }
      return refusal(request, answer.http);
    }
    if (number >= settings_.attempts) return refusal(request, answer.http);
    Duration wait;
    {
      const std::lock_guard lock(mutex_);
      wait = pacer_.before_retry(number);
    }
    PITCREW_TRY(pause(wait));
  }
}

Status Client::abort_parts(const std::string& key, const std::string& upload) {
  const Request request{.method = "DELETE", .key = key, .query = {{"uploadId", upload}}};
  PITCREW_ASSIGN(const Answer answer, send(request));
  if (answer.http.status / 100 != 2 && answer.http.status != 404) return refusal(request, answer.http);
  return {};
}

Result<std::vector<Client::Unfinished>> Client::unfinished(const std::string& prefix) {
  std::vector<Unfinished> found;
  std::string key, upload;
  do {
    Request request{.method = "GET", .key = "", .query = {{"uploads", ""}, {"prefix", prefix}}};
    request.query.emplace_back("max-uploads", std::to_string(settings_.page));
    if (!key.empty()) {
      request.query.emplace_back("key-marker", key);
      request.query.emplace_back("upload-id-marker", upload);
    }
    PITCREW_ASSIGN(const Answer answer, send(request));
    if (answer.http.status != 200) return refusal(request, answer.http);
    const std::string& xml = answer.http.body;
    for (const auto one : elements(xml, "Upload"))
      found.push_back({element_text(one, "Key"), element_text(one, "UploadId")});
    const bool more = element_text(xml, "IsTruncated") == "true";
    key = more ? element_text(xml, "NextKeyMarker") : "";
    upload = more ? element_text(xml, "NextUploadIdMarker") : "";
  } while (!key.empty());
  return found;
}

}  // namespace pitcrew::trainer::s3
