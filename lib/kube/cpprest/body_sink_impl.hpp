#pragma once

// Internal to lib/kube/cpprest.

#include <functional>
#include <string>

#include <cpprest/astreambuf.h>

namespace pitcrew::kube {

// The stream that cpprestsdk writes a response's body into. A piece is handed on, and the task of its write completes
// only when whoever took it says so: the server is held back meanwhile, and nothing piles up. cpprestsdk's own buffers
// have no limit. Called on cpprestsdk's threads, one write at a time.
class BodySink final : public Concurrency::streams::details::streambuf_state_manager<uint8_t> {
 public:
  // `taken(true)` asks for more, `taken(false)` gives the body up.
  using Taken = std::function<void(bool more)>;
  using Function = std::function<void(std::string piece, Taken taken)>;

  explicit BodySink(Function function) : streambuf_state_manager(std::ios_base::out), function_(std::move(function)) {}

  bool can_seek() const override { return false; }
  bool has_size() const override { return false; }
  size_t buffer_size(std::ios_base::openmode) const override { return 0; }
  void set_buffer_size(size_t, std::ios_base::openmode) override {}
  size_t in_avail() const override { return 0; }
  pos_type getpos(std::ios_base::openmode) const override { return static_cast<pos_type>(traits::eof()); }
  pos_type seekpos(pos_type, std::ios_base::openmode) override { return static_cast<pos_type>(traits::eof()); }
  pos_type seekoff(off_type, std::ios_base::seekdir, std::ios_base::openmode) override {
    return static_cast<pos_type>(traits::eof());
  }
  bool acquire(uint8_t*& data, size_t& count) override {
    data = nullptr;
    count = 0;
    return false;
  }
  void release(uint8_t*, size_t) override {}

 protected:
  pplx::task<int_type> _putc(uint8_t c) override {
    return _putn(&c, 1).then([c](size_t written) { return written == 1 ? int_type(c) : traits::eof(); });
  }
  pplx::task<size_t> _putn(const uint8_t* data, size_t count) override {
    const pplx::task_completion_event<size_t> taken;
    function_(std::string(reinterpret_cast<const char*>(data), count),
              [taken, count](bool more) { taken.set(more ? count : 0); });
    return pplx::create_task(taken);
  }
  pplx::task<bool> _sync() override { return pplx::task_from_result(true); }
  uint8_t* _alloc(size_t) override { return nullptr; }
  void _commit(size_t) override {}

  // There is nothing to read from it.
  pplx::task<size_t> _getn(uint8_t*, size_t) override { return pplx::task_from_result<size_t>(0); }
  size_t _scopy(uint8_t*, size_t) override { return 0; }
  pplx::task<int_type> _bumpc() override { return end(); }
  int_type _sbumpc() override { return traits::eof(); }
  pplx::task<int_type> _getc() override { return end(); }
  int_type _sgetc() override { return traits::eof(); }
  pplx::task<int_type> _nextc() override { return end(); }
  pplx::task<int_type> _ungetc() override { return end(); }

 private:
  static pplx::task<int_type> end() { return pplx::task_from_result<int_type>(traits::eof()); }
  Function function_;
};

}  // namespace pitcrew::kube
