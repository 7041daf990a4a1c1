#include "launcher/app/copy_self.hpp"

#include <cerrno>
#include <cstdio>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "launcher/supervise/process.hpp"

namespace pitcrew::launcher {

Status copy_self(const std::string& destination) {
  struct stat st {};
  const bool folder = stat(destination.c_str(), &st) == 0 && S_ISDIR(st.st_mode);
  const std::string path = folder ? destination + "/pitcrew-launcher" : destination;
  const std::string temporary = path + ".tmp";
  const Descriptor in(open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  if (!in) return errno_error("open this program through /proc/self/exe", errno);
  const Descriptor out(open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755));
  if (!out) return errno_error("copy the launcher to " + path, errno);
  std::vector<char> buffer(256 * 1024);
  while (true) {
    const ssize_t got = read(in.get(), buffer.data(), buffer.size());
    if (got < 0) return errno_error("read this program", errno);
    if (got == 0) break;
    for (ssize_t done = 0; done < got;) {
      const ssize_t wrote = write(out.get(), buffer.data() + done, static_cast<size_t>(got - done));
      if (wrote <= 0) {
        const int number = errno;
        unlink(temporary.c_str());
        return errno_error("copy the launcher to " + path, number);
      }
      done += wrote;
    }
  }
  fchmod(out.get(), 0755);  // whatever the umask: the training container may run as another user
  if (rename(temporary.c_str(), path.c_str()) != 0) return errno_error("copy the launcher to " + path, errno);
  return {};
}

}  // namespace pitcrew::launcher
