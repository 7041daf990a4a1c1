#include "lib/kube/watch/watcher.hpp"

#include <charconv>

#include "lib/kube/transport/list_page.hpp"
#include "lib/kube/types/fields.hpp"

namespace pitcrew::kube {
namespace {

void add_scope(Request& request, const WatchScope& scope) {
  if (!scope.label_selector.empty()) request.query.emplace_back("labelSelector", scope.label_selector);
  if (!scope.field_selector.empty()) request.query.emplace_back("fieldSelector", scope.field_selector);
}

bool marks_initial_end(const Payload& bookmark) {
  auto tree = bookmark.json();
  if (!tree) return false;
  const Json* annotations = fields::find(**tree, "metadata", "annotations");
  std::string mark;
  if (annotations != nullptr) fields::read(*annotations, "k8s.io/initial-events-end", mark);
  return mark == "true";
}

}  // namespace

std::optional<uint64_t> resource_version_number(const std::string& text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

Watcher::Watcher(Loop& loop, Transport& transport, ResourceType type, uint64_t seed, WatchScope scope,
                 ReflectorSettings settings, Logger log, Sink sink)
    : loop_(loop),
      transport_(transport),
      type_(std::move(type)),
      random_(seed),
      scope_(std::move(scope)),
      log_(std::move(log)),
      sink_(std::move(sink)),
      reflector_(settings) {}

Watcher::~Watcher() = default;

void Watcher::start() { step(Reflector::Started{}); }

Request Watcher::request(Verb verb) const {
  Request request{.verb = verb, .type = type_, .key = {scope_.ns, ""}};
  request.reduce = sink_.reduce;
  return request;
}

void Watcher::step(const Reflector::Input& input, const Payload* object) {
  for (const Reflector::Action& action : reflector_.step(input, loop_.now(), random_.uniform())) {
    if (const auto* list = std::get_if<Reflector::SendList>(&action)) {
      carry_out(*list);
    } else if (std::holds_alternative<Reflector::FinishList>(action)) {
      sink_.on_list(std::exchange(pages_, {}));
    } else if (std::holds_alternative<Reflector::Deliver>(action)) {
      const auto& event = std::get<Reflector::Event>(input);
      sink_.on_event(event.type, *object);
    } else if (std::holds_alternative<Reflector::Collect>(action)) {
      pages_.push_back(*object);
    } else if (const auto* watch = std::get_if<Reflector::OpenWatch>(&action)) {
      carry_out(*watch);
    } else if (std::holds_alternative<Reflector::CloseWatch>(action)) {
      call_.reset();
    } else if (const auto* sleep = std::get_if<Reflector::Sleep>(&action)) {
      timer_ = loop_.after(sleep->duration, [this] { step(Reflector::Woken{}); });
    }
  }
}

void Watcher::carry_out(const Reflector::SendList& list) {
  if (list.restart) {
    pages_.clear();
    timer_.reset();
    ++metrics_.lists;
  }
  Request page = request(Verb::kList);
  add_scope(page, scope_);
  if (list.limit > 0) page.query.emplace_back("limit", std::to_string(list.limit));
  if (!list.continue_token.empty()) {
    page.query.emplace_back("continue", list.continue_token);
  } else if (!list.resource_version.empty()) {
    page.query.emplace_back("resourceVersion", list.resource_version);
    if (list.resource_version != "0") page.query.emplace_back("resourceVersionMatch", "NotOlderThan");
  }
  page.timeout = seconds(60);
  call_ = transport_.send(std::move(page), [this](Result<Response> answer) { on_list_answer(std::move(answer)); });
}

void Watcher::on_list_answer(Result<Response> answer) {
  const auto failed = [this](Error error) {
    ++metrics_.errors;
    if (error.code == Code::kGone) ++metrics_.expired;
    log_.warning("list failed", {{"error", error.message}});
    step(Reflector::ListFailed{std::move(error)});
  };
  if (!answer) return failed(answer.error());
  if (auto error = error_of(request(Verb::kList), *answer)) return failed(*std::move(error));
  auto page = split_list(*std::move(answer));
  if (!page) return failed(page.error());
  std::move(page->items.begin(), page->items.end(), std::back_inserter(pages_));
  step(Reflector::Page{page->resource_version, page->continue_token});
}

void Watcher::carry_out(const Reflector::OpenWatch& watch) {
  ++metrics_.watches;
  Request stream = request(Verb::kWatch);
  stream.query.emplace_back("watch", "1");
  stream.query.emplace_back("allowWatchBookmarks", "true");
  stream.query.emplace_back("timeoutSeconds",
                            std::to_string(std::chrono::duration_cast<seconds>(watch.timeout).count()));
  if (watch.initial) {
    ++metrics_.lists;
    pages_.clear();
    stream.query.emplace_back("sendInitialEvents", "true");
    stream.query.emplace_back("resourceVersionMatch", "NotOlderThan");
  }
  if (!watch.initial || !watch.resource_version.empty())
    stream.query.emplace_back("resourceVersion", watch.resource_version);
  add_scope(stream, scope_);
  call_ = transport_.watch(std::move(stream), {[this](WatchEvent event) { on_watch_event(event); },
                                               [this](Status status) {
                                                 if (!status) {
                                                   ++metrics_.errors;
                                                   if (status.error().code == Code::kGone) ++metrics_.expired;
                                                   log_.debug("watch ended", {{"error", status.error().message}});
                                                 }
                                                 step(Reflector::WatchEnded{std::move(status)});
                                               }});
}

void Watcher::on_watch_event(const WatchEvent& event) {
  Reflector::Event input{event.type, "", {}};
  if (event.type == WatchEventType::kError) {
    ++metrics_.errors;
    auto tree = event.object.json();
    input.error = tree ? error_of_status(**tree, "watch " + type_.plural) : tree.error();
    if (input.error->code == Code::kGone) ++metrics_.expired;
    log_.debug("watch failed", {{"error", input.error->message}});
  } else {
    ++(event.type == WatchEventType::kBookmark ? metrics_.bookmarks : metrics_.events);
    input.resource_version = event.object.resource_version();
    input.initial_end = event.type == WatchEventType::kBookmark && marks_initial_end(event.object);
  }
  step(input, &event.object);
}

}  // namespace pitcrew::kube
