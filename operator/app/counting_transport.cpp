#include "operator/app/counting_transport.hpp"

namespace pitcrew::control {
namespace {

// What is counted by, without the body.
kube::Request headline(const kube::Request& request) {
  kube::Request shown;
  shown.verb = request.verb;
  shown.type = request.type;
  shown.key = request.key;
  shown.subresource = request.subresource;
  return shown;
}

}  // namespace

kube::CallPtr CountingTransport::send(kube::Request request, Answer answer) {
  kube::Request shown = headline(request);
  return beneath_.send(std::move(request), [this, shown = std::move(shown), since = clock_.now(),
                                            answer = std::move(answer)](Result<kube::Response> response) {
    tell_(shown, response ? std::to_string(response->status) : "<error>", clock_.now() - since);
    answer(std::move(response));
  });
}

kube::CallPtr CountingTransport::watch(kube::Request request, WatchSink sink) {
  kube::Request shown = headline(request);
  const auto end = std::move(sink.on_end);
  sink.on_end = [this, shown = std::move(shown), since = clock_.now(), end](Status status) {
    tell_(shown, status ? "200" : "<error>", clock_.now() - since);
    end(std::move(status));
  };
  return beneath_.watch(std::move(request), std::move(sink));
}

}  // namespace pitcrew::control
