#pragma once

// Internal to lib/net.

#include <openssl/bio.h>

namespace pitcrew::net::internal {

// An OpenSSL BIO over a non-blocking socket that it doesn't own. Unlike OpenSSL's own it sends with MSG_NOSIGNAL: a
// library must not need SIGPIPE ignored, since that is inherited by the processes that the launcher starts.
BIO* make_socket_bio(int fd);

}  // namespace pitcrew::net::internal
