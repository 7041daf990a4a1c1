#include "lib/net/socket_bio.hpp"

#include <cerrno>
#include <cstdint>

#include <sys/socket.h>

#include "lib/base/result.hpp"

namespace pitcrew::net::internal {

namespace {

int fd_of(BIO* bio) { return static_cast<int>(reinterpret_cast<intptr_t>(BIO_get_data(bio))); }

bool later() { return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR; }

int write_some(BIO* bio, const char* data, size_t size, size_t* written) {
  BIO_clear_retry_flags(bio);
  const ssize_t count = ::send(fd_of(bio), data, size, MSG_NOSIGNAL);
  if (count < 0) {
    if (later()) BIO_set_retry_write(bio);
    return 0;
  }
  *written = static_cast<size_t>(count);
  return 1;
}

int read_some(BIO* bio, char* data, size_t size, size_t* read) {
  BIO_clear_retry_flags(bio);
  const ssize_t count = ::recv(fd_of(bio), data, size, 0);
  if (count < 0 && later()) BIO_set_retry_read(bio);
  if (count == 0) BIO_set_flags(bio, BIO_FLAGS_IN_EOF);
  if (count <= 0) return 0;
  *read = static_cast<size_t>(count);
  return 1;
}

long control(BIO* bio, int command, long, void*) {
  switch (command) {
    case BIO_CTRL_FLUSH:
      return 1;
    case BIO_CTRL_EOF:
      return BIO_test_flags(bio, BIO_FLAGS_IN_EOF) != 0 ? 1 : 0;
    default:
      return 0;
  }
}

}  // namespace

BIO* make_socket_bio(int fd) {
  static BIO_METHOD* const method = [] {
    BIO_METHOD* made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK | BIO_TYPE_DESCRIPTOR, "pitcrew socket");
    PITCREW_INVARIANT(made != nullptr, "OpenSSL can't make a BIO method");
    BIO_meth_set_write_ex(made, write_some);
    BIO_meth_set_read_ex(made, read_some);
    BIO_meth_set_ctrl(made, control);
    return made;
  }();
  BIO* bio = BIO_new(method);
  PITCREW_INVARIANT(bio != nullptr, "OpenSSL can't make a BIO");
  BIO_set_data(bio, reinterpret_cast<void*>(static_cast<intptr_t>(fd)));
  BIO_set_init(bio, 1);
  return bio;
}

}  // namespace pitcrew::net::internal
