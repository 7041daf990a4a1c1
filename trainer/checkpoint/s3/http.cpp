#include "trainer/checkpoint/s3/http.hpp"

#include <algorithm>
#include <atomic>
#include <cctype>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <vector>

#include <curl/curl.h>

namespace pitcrew::trainer::s3 {
namespace {

struct Transfer {
  const HttpRequest& request;
  const std::atomic<bool>& aborted;
  HttpAnswer answer;
  size_t sent = 0;
  size_t received = 0;
  bool too_long = false;
};

size_t read_body(char* to, size_t size, size_t count, void* user) {
  auto& transfer = *static_cast<Transfer*>(user);
  const auto left = transfer.request.body.subspan(transfer.sent);
  const size_t bytes = std::min(left.size(), size * count);
  if (bytes > 0) std::memcpy(to, left.data(), bytes);
  transfer.sent += bytes;
  return bytes;
}

// libcurl rewinds when it sends again on a new connection.
int seek_body(void* user, curl_off_t offset, int origin) {
  auto& transfer = *static_cast<Transfer*>(user);
  if (origin != SEEK_SET || offset < 0 || static_cast<size_t>(offset) > transfer.request.body.size())
    return CURL_SEEKFUNC_FAIL;
  transfer.sent = static_cast<size_t>(offset);
  return CURL_SEEKFUNC_OK;
}

size_t take_header(char* data, size_t size, size_t count, void* user) {
  auto& transfer = *static_cast<Transfer*>(user);
  const std::string_view line(data, size * count);
  if (line.starts_with("HTTP/")) {  // of the last answer, after 100 Continue and the like
    transfer.answer = {};
    transfer.received = 0;
    const size_t space = line.find(' ');
    if (space != std::string_view::npos)
      transfer.answer.status = std::atoi(std::string(line.substr(space + 1)).c_str());
    return line.size();
  }
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos) return line.size();
  std::string name(line.substr(0, colon));
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
  std::string_view value = line.substr(colon + 1);
  while (!value.empty() && (value.front() == ' ' || value.front() == '\t')) value.remove_prefix(1);
  while (!value.empty() && (value.back() == '\r' || value.back() == '\n' || value.back() == ' '))
    value.remove_suffix(1);
  transfer.answer.headers[std::move(name)] = value;
  return line.size();
}

size_t take_body(char* data, size_t size, size_t count, void* user) {
  auto& transfer = *static_cast<Transfer*>(user);
  const size_t bytes = size * count;
  const auto into = transfer.request.into;
  const bool direct = !into.empty() && transfer.answer.status / 100 == 2;
  if (transfer.received + bytes > (direct ? into.size() : Http::kMaxBody)) {
    transfer.too_long = true;
    return 0;
  }
  if (direct) {
    std::memcpy(into.data() + transfer.received, data, bytes);
  } else {
    transfer.answer.body.append(data, bytes);
  }
  transfer.received += bytes;
  return bytes;
}

int look_aborted(void* user, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  return static_cast<Transfer*>(user)->aborted ? 1 : 0;
}

Code code_of(CURLcode code) {
  switch (code) {
    case CURLE_ABORTED_BY_CALLBACK:
      return Code::kCancelled;
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
      return Code::kInvalidArgument;
    default:
      return Code::kUnavailable;
  }
}

}  // namespace

struct Http::State {
  Settings settings;
  std::atomic<bool> aborted{false};
  std::mutex mutex;
  std::vector<CURL*> idle;  // with their connections

  CURL* take() {
    {
      const std::lock_guard lock(mutex);
      if (!idle.empty()) {
        CURL* handle = idle.back();
        idle.pop_back();
        curl_easy_reset(handle);  // keeps its connections
        return handle;
      }
    }
    return curl_easy_init();
  }
  void give_back(CURL* handle) {
    const std::lock_guard lock(mutex);
    idle.push_back(handle);
  }
};

Http::Http(Settings settings) : state_(std::make_unique<State>()) {
  static const CURLcode kStarted = curl_global_init(CURL_GLOBAL_DEFAULT);
  PITCREW_INVARIANT(kStarted == CURLE_OK, "libcurl starts");
  state_->settings = settings;
}

Http::~Http() {
  for (CURL* handle : state_->idle) curl_easy_cleanup(handle);
}

void Http::abort() { state_->aborted = true; }
bool Http::aborted() const { return state_->aborted; }

Result<HttpAnswer> Http::send(const HttpRequest& request) {
  if (state_->aborted) return Error(Code::kCancelled, request.method + " " + request.url + ": it was ended");
  CURL* curl = state_->take();
  PITCREW_INVARIANT(curl != nullptr, "libcurl gives a handle");
  Transfer transfer{request, state_->aborted, {}, 0, 0, false};
  char why[CURL_ERROR_SIZE] = "";
  curl_slist* headers = nullptr;
  for (const auto& [name, value] : request.headers) {
    if (name != "content-length") headers = curl_slist_append(headers, (name + ": " + value).c_str());
  }
  // Nothing waits for "100 Continue", and nothing is guessed about the body.
  for (const char* none : {"Expect:", "Transfer-Encoding:", "User-Agent: pitcrew"})
    headers = curl_slist_append(headers, none);

  curl_easy_setopt(curl, CURLOPT_URL, request.url.c_str());
  curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, why);
  curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(curl, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
  curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
  curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS,
                   static_cast<long>(state_->settings.connect_within / milliseconds(1)));
  curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, state_->settings.slow_bytes);
  curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME,
                   std::max(1L, static_cast<long>(request.quiet_for.value_or(state_->settings.slow_for) / seconds(1))));
  if (request.direct) curl_easy_setopt(curl, CURLOPT_PROXY, "");
  curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, &look_aborted);
  curl_easy_setopt(curl, CURLOPT_XFERINFODATA, &transfer);
  curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, &take_header);
  curl_easy_setopt(curl, CURLOPT_HEADERDATA, &transfer);
  curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, &take_body);
  curl_easy_setopt(curl, CURLOPT_WRITEDATA, &transfer);
  curl_easy_setopt(curl, CURLOPT_BUFFERSIZE, 512L * 1024);
  if (request.method == "PUT" || request.method == "POST") {
    curl_easy_setopt(curl, CURLOPT_UPLOAD, 1L);
    curl_easy_setopt(curl, CURLOPT_UPLOAD_BUFFERSIZE, 512L * 1024);
    curl_easy_setopt(curl, CURLOPT_INFILESIZE_LARGE, static_cast<curl_off_t>(request.body.size()));
    curl_easy_setopt(curl, CURLOPT_READFUNCTION, &read_body);
    curl_easy_setopt(curl, CURLOPT_READDATA, &transfer);
    curl_easy_setopt(curl, CURLOPT_SEEKFUNCTION, &seek_body);
    curl_easy_setopt(curl, CURLOPT_SEEKDATA, &transfer);
  } else if (request.method == "HEAD") {
    curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
  }
  curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, request.method.c_str());
  const CURLcode done = curl_easy_perform(curl);
  curl_slist_free_all(headers);
  state_->give_back(curl);

  const std::string what = request.method + " " + request.url.substr(0, request.url.find('?'));
  if (transfer.too_long) return Error(Code::kDataLoss, what + ": the answer is longer than what was asked for");
  if (done != CURLE_OK) return Error(code_of(done), what + ": " + (why[0] != '\0' ? why : curl_easy_strerror(done)));
  if (!request.into.empty() && transfer.answer.status / 100 == 2 && transfer.received != request.into.size())
    return Error(Code::kUnavailable, what + ": the answer ended before its end");
  return std::move(transfer.answer);
}

}  // namespace pitcrew::trainer::s3
