#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace pitcrew {

// What kind of failure an Error is: what a caller may branch on. The message is for people.
enum class Code {
  kInvalidArgument,  // the caller's input is wrong; retrying won't help
  kNotFound,
  kAlreadyExists,
  kConflict,            // the object changed since it was read
  kGone,                // the resource version is too old; list again
  kPreconditionFailed,  // a UID or version precondition did not hold
  kUnauthenticated,
  kForbidden,
  kTooManyRequests,
  kUnavailable,  // nobody answered, or the answer was "later"
  kDeadlineExceeded,
  kCancelled,
  kResourceExhausted,  // disk, memory, quota or a limit of ours
  kDataLoss,           // bytes are damaged or missing
  kUnsupported,
  kInternal,
};

std::string_view to_string(Code code);

// A failure as a value. `message` says what was attempted, on what, and what to do.
struct Error {  // NOLINT(clang-analyzer-core.uninitialized.Assign): the analyzer can't see which half a variant holds
  Code code = Code::kInternal;
  std::string message;
  // How long to wait before trying again, where the other side said so.
  std::optional<std::chrono::milliseconds> retry_after;

  Error(Code c, std::string m) : code(c), message(std::move(m)) {}
  Error(Code c, std::string m, std::chrono::milliseconds retry) : code(c), message(std::move(m)), retry_after(retry) {}

  // The same error with what was being attempted in front: `context: message`.
  Error with_context(std::string_view context) const&;

  // Whether the same attempt may succeed later without anybody changing anything.
  bool retryable() const;
};

// Either a T or an Error. Not reading it is a compile error; reading the wrong half ends the process.
//
//   Result<int> parsed = parse(text);
//   if (!parsed) return parsed.error();
//   use(*parsed);
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}

  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }

  T& operator*() & { return std::get<0>(state_); }
  const T& operator*() const& { return std::get<0>(state_); }
  T&& operator*() && { return std::get<0>(std::move(state_)); }
  T* operator->() { return &std::get<0>(state_); }
  const T* operator->() const { return &std::get<0>(state_); }

  const Error& error() const& { return std::get<1>(state_); }
  Error&& error() && { return std::get<1>(std::move(state_)); }

  T value_or(T fallback) const& { return ok() ? **this : std::move(fallback); }

 private:
  std::variant<T, Error> state_;
};

// Success, or an Error.
template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)) {}

  bool ok() const { return !error_; }
  explicit operator bool() const { return ok(); }
  const Error& error() const& { return *error_; }
  Error&& error() && { return std::move(*error_); }

 private:
  std::optional<Error> error_;
};

using Status = Result<void>;

// The error of a failed system call: `what: strerror(number)`, with the code that fits the errno.
Error errno_error(std::string_view what, int number);

// Returns the error of `expression` from the enclosing function, if it has one.
#define PITCREW_TRY(expression)                                 \
  do {                                                          \
    if (auto pitcrew_try_ = (expression); !pitcrew_try_.ok()) { \
      return std::move(pitcrew_try_).error();                   \
    }                                                           \
  } while (false)

// PITCREW_ASSIGN(auto x, f()): x becomes the value of f(), or f()'s error is returned.
#define PITCREW_ASSIGN(target, expression) \
  PITCREW_ASSIGN_IMPL_(PITCREW_CONCAT_(pitcrew_result_, __LINE__), target, expression)
#define PITCREW_ASSIGN_IMPL_(result, target, expression) \
  auto result = (expression);                            \
  if (!result.ok()) return std::move(result).error();    \
  target = *std::move(result)
#define PITCREW_CONCAT_(a, b) PITCREW_CONCAT_IMPL_(a, b)
#define PITCREW_CONCAT_IMPL_(a, b) a##b

// An invariant of ours that does not hold: says so with its place and ends the process.
[[noreturn]] void fail_invariant(const char* condition, const char* file, int line, std::string_view message);
#define PITCREW_INVARIANT(condition, message)                                             \
  do {                                                                                    \
    if (!(condition)) ::pitcrew::fail_invariant(#condition, __FILE__, __LINE__, message); \
  } while (false)

}  // namespace pitcrew
