#include "lib/net/metrics/metrics_endpoint.hpp"

#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include "lib/net/metrics/process_collector.hpp"

namespace pitcrew::net {

namespace {

HttpResponse answer(const std::function<Status()>& check) {
  const Status status = check ? check() : Status();
  if (!status) return text_response(503, status.error().message + "\n");
  return text_response(200, "ok\n");
}

}  // namespace

Result<ProgramEndpoints> ProgramEndpoints::listen(AsioLoop& loop, const std::string& host, uint32_t metrics_port,
                                                  uint32_t health_port, std::shared_ptr<prometheus::Registry> registry,
                                                  std::function<std::string()> not_ready, Logger log) {
  const auto open = [&](uint32_t port) {
    HttpServerSettings server;
    server.address = {host, static_cast<uint16_t>(port)};
    HealthChecks checks;
    checks.ready = [not_ready]() -> Status {
      const std::string why = not_ready();
      if (why.empty()) return {};
      return Error(Code::kUnavailable, why);
    };
    return MetricsEndpoint::listen(loop, server, registry, checks, log);
  };
  ProgramEndpoints endpoints;
  PITCREW_ASSIGN(endpoints.metrics_, open(metrics_port));
  if (health_port != metrics_port) {
    PITCREW_ASSIGN(endpoints.health_, open(health_port));
  }
  return endpoints;
}

std::string metrics_text(const prometheus::Registry& registry) {
  auto families = registry.Collect();
  for (auto& family : ProcessCollector().Collect()) families.push_back(std::move(family));
  return prometheus::TextSerializer().Serialize(families);
}

Result<std::unique_ptr<MetricsEndpoint>> MetricsEndpoint::listen(AsioLoop& loop, HttpServerSettings settings,
                                                                 std::shared_ptr<prometheus::Registry> registry,
                                                                 HealthChecks checks, Logger log) {
  auto handle = [registry = std::move(registry), checks = std::move(checks)](HttpRequest request,
                                                                             HttpResponderPtr responder) {
    if (request.method != "GET" && request.method != "HEAD") {
      HttpResponse refused = text_response(405, "only GET and HEAD are answered here\n");
      refused.headers.emplace_back("Allow", "GET, HEAD");
      return responder->respond(std::move(refused));
    }
    if (request.path() == "/metrics") {
      return responder->respond(
          {200, {{"Content-Type", "text/plain; version=0.0.4; charset=utf-8"}}, metrics_text(*registry)});
    }
    if (request.path() == "/healthz") return responder->respond(answer(checks.healthy));
    if (request.path() == "/readyz") return responder->respond(answer(checks.ready));
    responder->respond(text_response(404, "there are /metrics, /healthz and /readyz\n"));
  };
  PITCREW_ASSIGN(auto server, HttpServer::listen(loop, std::move(settings), std::move(handle), std::move(log)));
  return std::unique_ptr<MetricsEndpoint>(new MetricsEndpoint(std::move(server)));
}

}  // namespace pitcrew::net
