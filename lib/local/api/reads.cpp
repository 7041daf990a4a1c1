#include "lib/local/api/reads.hpp"

#include <algorithm>

#include "lib/local/api/answers.hpp"
#include "lib/local/api/requests.hpp"
#include "lib/local/api/selector.hpp"

namespace pitcrew::local {

using kube::Payload;
using kube::Request;
using kube::Response;
using kube::WatchEventType;

namespace {

Response too_large_version(uint64_t asked, uint64_t current) {
  Json body = answers::status_json(
      504, "Timeout", "Too large resource version: " + std::to_string(asked) + ", current: " + std::to_string(current));
  body["details"] = {
      {"retryAfterSeconds", 1},
      {"causes", Json::array({{{"reason", "ResourceVersionTooLarge"}, {"message", "Too large resource version"}}})}};
  return {.status = 504, .body = Payload::of(std::move(body)), .retry_after = seconds(1)};
}

// Objects of a namespace, or all.
template <typename F>
void in_namespace(const Store::Type& type, const std::string& ns, F&& f) {
  auto entry = ns.empty() ? type.objects.begin() : type.objects.lower_bound(ObjectKey{ns, ""});
  for (; entry != type.objects.end() && (ns.empty() || entry->first.ns == ns); ++entry) f(entry->second);
}

Result<WatchHub::Interest> interest(const Request& request) {
  WatchHub::Interest interest;
  interest.ns = request.key.ns;
  PITCREW_ASSIGN(interest.labels, Selector::labels(request.parameter("labelSelector")));
  PITCREW_ASSIGN(interest.fields, Selector::fields(request.parameter("fieldSelector")));
  return interest;
}

std::vector<Payload> matching(const Store::Type& type, const WatchHub::Interest& interest) {
  std::vector<Payload> items;
  in_namespace(type, interest.ns, [&](const Payload& body) {
    if (interest.labels.matches_labels(**body.json()) && interest.fields.matches_fields(**body.json()))
      items.push_back(body);
  });
  return items;
}

Response page(const Store::Type& type, std::vector<Payload> items, uint64_t version, const std::string& token) {
  Json body = {{"kind", type.resource.kind + "List"},
               {"apiVersion", type.resource.api_version()},
               {"metadata", {{"resourceVersion", std::to_string(version)}}}};
  if (!token.empty()) body["metadata"]["continue"] = token;
  return {.body = Payload::of(std::move(body)), .items = std::move(items)};
}

}  // namespace

Response Reads::get(Store::Type& type, const Request& request) {
  const auto found = type.objects.find(request.key);
  if (found == type.objects.end()) return answers::not_found(type.resource, request.key);
  return answers::object(found->second);
}

Response Reads::list(Store::Type& type, const Request& request) {
  auto wanted = interest(request);
  if (!wanted) return answers::bad_request(wanted.error().message);
  const auto version = number(request.parameter("resourceVersion"));
  if (version && *version > store_.version()) return too_large_version(*version, store_.version());
  const uint64_t limit = number(request.parameter("limit")).value_or(0);
  const std::string& token = request.parameter("continue");
  if (!token.empty()) return next_page(type, token, limit);
  Pages pages{matching(type, *wanted), store_.version(), loop_.now() + settings_.continue_lifetime};
  if (limit == 0 || pages.items.size() <= limit) return page(type, std::move(pages.items), store_.version(), "");
  const uint64_t id = ++next_pages_;
  drop_expired_pages();
  return page_of(type, id, pages_.emplace(id, std::move(pages)).first->second, 0, limit);
}

// A token is <list>.<offset>; it may be used again, since an answer can be lost.
Response Reads::next_page(Store::Type& type, const std::string& token, uint64_t limit) {
  const size_t dot = token.find('.');
  const auto id = number(token.substr(0, dot));
  const auto offset = dot == token.npos ? std::nullopt : number(token.substr(dot + 1));
  if (!id || !offset) return answers::bad_request("continue key is not valid");
  drop_expired_pages();
  const auto found = pages_.find(*id);
  if (found == pages_.end() || *offset > found->second.items.size()) {
    return answers::status(410, "Expired",
                           "The provided continue parameter is too old to display a consistent list result. "
                           "You can start a new list without the continue parameter.");
  }
  return page_of(type, *id, found->second, *offset, limit == 0 ? found->second.items.size() : limit);
}

Response Reads::page_of(Store::Type& type, uint64_t id, const Pages& pages, uint64_t offset, uint64_t limit) {
  const uint64_t end = std::min<uint64_t>(pages.items.size(), offset + limit);
  const bool last = end == pages.items.size();
  return page(type,
              {pages.items.begin() + static_cast<ptrdiff_t>(offset), pages.items.begin() + static_cast<ptrdiff_t>(end)},
              pages.version, last ? "" : std::to_string(id) + "." + std::to_string(end));
}

void Reads::drop_expired_pages() {
  while (!pages_.empty() && pages_.begin()->second.expires <= loop_.now()) pages_.erase(pages_.begin());
}

Result<kube::CallPtr> Reads::watch(Store::Type& type, const Request& request, kube::Transport::WatchSink sink) {
  auto wanted = interest(request);
  if (!wanted) return wanted.error();
  if (!request.key.name.empty())
    return Error(Code::kInvalidArgument, "watch one object by fieldSelector=metadata.name=…");
  wanted->bookmarks = request.parameter("allowWatchBookmarks") == "true";
  const auto timeout = number(request.parameter("timeoutSeconds"));
  wanted->timeout = timeout ? Duration(seconds(*timeout)) : settings_.watch_timeout;
  const std::string& version = request.parameter("resourceVersion");
  const bool initial = request.parameter("sendInitialEvents") == "true";
  if (version.empty() || version == "0" || initial) {
    const std::vector<Payload> items = matching(type, *wanted);
    return type.watches->open(items, initial, *std::move(wanted), std::move(sink));
  }
  const auto since = number(version);
  if (!since) return Error(Code::kInvalidArgument, "resourceVersion: '" + version + "' is not a number");
  if (*since > store_.version()) return *kube::error_of(request, too_large_version(*since, store_.version()));
  kube::CallPtr call;
  if (type.watches->open(*since, call, *std::move(wanted), sink)) return call;
  const std::string message = "too old resource version: " + version + " (" + std::to_string(store_.version()) + ")";
  if (settings_.gone_as_status) return *kube::error_of(request, answers::status(410, "Expired", message));
  sink.on_event({WatchEventType::kError, Payload::of(answers::status_json(410, "Expired", message))});
  sink.on_end({});
  return call;
}

}  // namespace pitcrew::local
