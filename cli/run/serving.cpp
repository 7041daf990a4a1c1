#include "cli/run/serving.hpp"

#include <deque>
#include <filesystem>
#include <fstream>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/run/run_folder.hpp"
#include "lib/kube/types/pod.hpp"
#include "lib/local/http/http_api.hpp"
#include "lib/net/crypto.hpp"
#include "lib/net/http_client.hpp"
#include "lib/net/metrics/metrics_endpoint.hpp"
#include "lib/net/tls.hpp"
#include "operator/app/counting_transport.hpp"

namespace pitcrew::cli {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPods = "/pods/";
constexpr Duration kPodAnswersWithin = seconds(2);
constexpr Duration kCertificateLife = hours(24 * 365);

// "/api/v1/namespaces/a/pods/x:9400/proxy/metrics": which pod, and what of it.
struct PodPath {
  std::string ns;
  std::string pod;
  uint16_t port = 0;
  std::string rest;  // "log", "proxy/metrics"
};

std::optional<PodPath> pod_path(const net::HttpRequest& request) {
  const std::string path = net::percent_decode(request.path());
  const std::string prefix = "/api/v1/namespaces/";
  const size_t pods = path.find(kPods);
  if (request.method != "GET" || path.rfind(prefix, 0) != 0 || pods == std::string::npos) return std::nullopt;
  const size_t name = pods + kPods.size();
  const size_t slash = path.find('/', name);
  if (slash == std::string::npos || path.find("..") != std::string::npos) return std::nullopt;
  PodPath found{path.substr(prefix.size(), pods - prefix.size()), path.substr(name, slash - name), 0,
                path.substr(slash + 1)};
  if (const size_t colon = found.pod.find(':'); colon != std::string::npos) {
    found.port = static_cast<uint16_t>(std::strtoul(found.pod.c_str() + colon + 1, nullptr, 10));
    found.pod.resize(colon);
  }
  return found;
}

std::string parameter(const net::HttpRequest& request, const std::string& name) {
  for (const auto& [key, value] : net::parse_query(request.query())) {
    if (key == name) return value;
  }
  return "";
}

// The file that the simulated node writes the container's output to. It keeps no times of lines: each gets the file's.
net::HttpResponse log_of(const std::string& logs, const PodPath& path, const net::HttpRequest& request) {
  std::string container = parameter(request, "container");
  if (container.empty()) container = "train";
  const fs::path file = fs::path(logs) / path.pod / (container + ".log");
  std::ifstream in(file);
  if (!in || container.find('/') != std::string::npos || parameter(request, "previous") == "true")
    return net::json_response(
        404,
        Json({{"kind", "Status"}, {"code", 404}, {"reason", "NotFound"}, {"message", "there is no such log"}}).dump());
  const std::string tail = parameter(request, "tailLines");
  const size_t most = tail.empty() ? SIZE_MAX : std::strtoull(tail.c_str(), nullptr, 10);
  std::deque<std::string> lines;
  for (std::string line; std::getline(in, line);) {
    lines.push_back(std::move(line));
    if (lines.size() > most) lines.pop_front();
  }
  struct stat information {};
  stat(file.c_str(), &information);
  const std::string time =
      to_rfc3339(Instant(seconds(information.st_mtim.tv_sec) + Duration(information.st_mtim.tv_nsec)), 9);
  std::string text;
  for (const std::string& line : lines)
    text += (parameter(request, "timestamps") == "true" ? time + " " : "") + line + "\n";
  return net::text_response(200, text);
}

Status write_private(const std::string& file, const std::string& text) {
  std::error_code ignored;
  fs::remove(file, ignored);
  const int fd = ::open(file.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) return errno_error("write " + file, errno);
  const bool whole = ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  ::close(fd);
  return whole ? Status() : Status(Error(Code::kResourceExhausted, "write " + file + ": the disk is full"));
}

std::string kubeconfig(const std::string& address, const std::string& root, const std::string& token) {
  return "apiVersion: v1\nkind: Config\ncurrent-context: pitcrew-run\n"
         "clusters: [{name: pitcrew-run, cluster: {server: \"https://" +
         address + "\", certificate-authority-data: " + net::base64_encode(root) +
         "}}]\n"
         "contexts: [{name: pitcrew-run, context: {cluster: pitcrew-run, user: pitcrew-run, namespace: default}}]\n"
         "users: [{name: pitcrew-run, user: {token: " +
         token + "}}]\n";
}

}  // namespace

Result<std::unique_ptr<Serving>> Serving::open(net::AsioLoop& loop, local::ApiServer& server, const RunFolder& folder,
                                               Logger log) {
  std::unique_ptr<Serving> serving(new Serving(loop));
  const std::string token = net::hex(net::random_bytes(16));
  const net::Validity validity{loop.now() - minutes(5), loop.now() + kCertificateLife};
  PITCREW_ASSIGN(const auto authority, net::CertificateAuthority::create("pitcrew run --serve", validity));
  local::HttpApiSettings settings;
  PITCREW_ASSIGN(settings.identity, authority.issue({{"localhost"}, {"127.0.0.1"}}, validity));
  settings.authenticate = [token](const std::string& shown) { return shown == token; };
  settings.pods = [&loop, &server, logs = folder.logs()](const net::HttpRequest& request, const local::Answer& answer) {
    const auto path = pod_path(request);
    if (!path) return false;
    if (path->rest == "log") {
      answer(log_of(logs, *path, request));
      return true;
    }
    if (path->rest.rfind("proxy/", 0) != 0) return false;
    const kube::Payload stored = server.find(kube::Pod::type(), {path->ns, path->pod});
    const auto pod = stored.empty() ? Result<std::shared_ptr<const kube::Pod>>(Error(Code::kNotFound, "no such pod"))
                                    : stored.as<kube::Pod>();
    if (!pod || (*pod)->pod_ip.empty()) {
      answer(net::text_response(503, "the pod has no address"));
      return true;
    }
    net::HttpClientSettings client;
    client.address = {(*pod)->pod_ip, path->port};
    client.connect_timeout = kPodAnswersWithin;
    client.timeout = kPodAnswersWithin;
    net::HttpRequest ask;
    ask.target = path->rest.substr(5);  // without "proxy"
    auto held = std::make_shared<net::HttpExchangePtr>();
    *held = net::http_request(loop, client, ask, {[&loop, answer, held](Result<net::HttpResponse> response) {
                                answer(response ? *response : net::text_response(503, response.error().message));
                                loop.post([held] { held->reset(); });  // not inside its own function
                              }});
    return true;
  };
  PITCREW_ASSIGN(serving->api_, local::HttpApi::serve(loop, server, settings, log));
  net::HttpServerSettings http;
  http.address = {"127.0.0.1", 0};
  PITCREW_ASSIGN(serving->endpoint_, net::MetricsEndpoint::listen(loop, http, serving->metrics_.registry(), {}, log));
  PITCREW_TRY(write_private(folder.path() + "/kubeconfig",
                            kubeconfig(net::to_string(serving->api_->address()), authority.certificate_pem(), token)));
  PITCREW_TRY(write_private(folder.path() + "/metrics-address", net::to_string(serving->endpoint_->address()) + "\n"));
  return serving;
}

Serving::Serving(net::AsioLoop& loop) : loop_(loop) {}
Serving::~Serving() { metrics_.watch(nullptr); }

kube::Transport& Serving::counted(kube::Transport& transport) {
  counted_ = std::make_unique<control::CountingTransport>(
      loop_, transport, [this](const kube::Request& request, const std::string& code, Duration took) {
        metrics_.request(request, code, took);
      });
  return *counted_;
}

}  // namespace pitcrew::cli
