#pragma once
// How a function says that it could not do what it was asked: `Result<T>` holds a value or an
// `Error`. An error's message names the field, the value found and the values allowed, on one line.

#include <string>
#include <utility>
#include <vector>

#include <tl/expected.hpp>

namespace weir {

// Decides the exit code: what the user wrote is wrong or infeasible (2), or the run itself failed
// (1).
enum class ErrorKind { invalid_input, run_failed };

struct Error {
  ErrorKind kind = ErrorKind::invalid_input;
  std::string message;

  bool operator==(const Error&) const = default;
};

template <class T>
using Result = tl::expected<T, Error>;

using Status = Result<void>;

[[nodiscard]] inline tl::unexpected<Error> invalid_input(std::string message) {
  return tl::unexpected<Error>(
      Error{.kind = ErrorKind::invalid_input, .message = std::move(message)});
}

[[nodiscard]] inline tl::unexpected<Error> run_failed(std::string message) {
  return tl::unexpected<Error>(Error{.kind = ErrorKind::run_failed, .message = std::move(message)});
}

// Every problem that a validator found, joined into one line: "a; b; c". At most
// `kMaxListedProblems` are spelled out.
inline constexpr std::size_t kMaxListedProblems = 20;
[[nodiscard]] std::string join_problems(const std::vector<std::string>& problems);

}  // namespace weir
