#include "lib/net/http_wire.hpp"

#include <array>
#include <cstdio>

#include <boost/beast/http/status.hpp>
#include <strings.h>

namespace pitcrew::net::internal {

namespace {

bool set_by_us(const std::string& name) {
  static constexpr std::array kNames = {"content-length", "transfer-encoding", "connection", "host"};
  for (const char* ours : kNames) {
    if (strcasecmp(name.c_str(), ours) == 0) return true;
  }
  return false;
}

std::string one_line(std::string text) {
  for (char& c : text) {
    if (c == '\r' || c == '\n' || c == '\0') c = ' ';
  }
  return text;
}

void add_fields(std::string& head, const Headers& headers) {
  for (const auto& [name, value] : headers) {
    if (!set_by_us(name)) head += one_line(name) + ": " + one_line(value) + "\r\n";
  }
}

}  // namespace

std::string response_head(const HttpResponse& response, BodyFraming framing, bool keep_alive) {
  const auto reason =
      boost::beast::http::obsolete_reason(boost::beast::http::int_to_status(static_cast<unsigned>(response.status)));
  std::string head =
      "HTTP/1.1 " + std::to_string(response.status) + " " + std::string(reason.data(), reason.size()) + "\r\n";
  add_fields(head, response.headers);
  const bool bodyless = response.status == 204 || response.status == 304;
  if (framing == BodyFraming::kChunked) head += "Transfer-Encoding: chunked\r\n";
  if (framing == BodyFraming::kLength && !bodyless) {
    head += "Content-Length: " + std::to_string(response.body.size()) + "\r\n";
  }
  head += keep_alive ? "\r\n" : "Connection: close\r\n\r\n";
  return head;
}

std::string request_head(const HttpRequest& request, const std::string& host, bool keep_alive) {
  std::string head =
      one_line(request.method) + " " + one_line(request.target) + " HTTP/1.1\r\nHost: " + one_line(host) + "\r\n";
  add_fields(head, request.headers);
  const bool takes_body = request.method == "POST" || request.method == "PUT" || request.method == "PATCH";
  if (takes_body || !request.body.empty()) head += "Content-Length: " + std::to_string(request.body.size()) + "\r\n";
  head += keep_alive ? "\r\n" : "Connection: close\r\n\r\n";
  return head;
}

std::string chunk(std::string_view piece) {
  char size[20];
  const int digits = std::snprintf(size, sizeof size, "%zx\r\n", piece.size());
  std::string text;
  text.reserve(static_cast<size_t>(digits) + piece.size() + 2);
  text.append(size, static_cast<size_t>(digits));
  text.append(piece);
  text.append("\r\n");
  return text;
}

}  // namespace pitcrew::net::internal
