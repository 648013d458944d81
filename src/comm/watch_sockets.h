#pragma once
// The connections of a rank watch: how ranks find rank 0 and make sure that it is theirs.

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace weir {

// Owns a file descriptor.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int number) : number_(number) {}
  ~Descriptor();
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  [[nodiscard]] int get() const { return number_; }
  explicit operator bool() const { return number_ >= 0; }

 private:
  int number_ = -1;
};

// A socket that listens on all addresses of this host, and the port that it got.
struct ListeningSocket {
  Descriptor socket;
  std::uint16_t port = 0;
};
[[nodiscard]] Result<ListeningSocket> listen_anywhere(std::size_t backlog);

// Numeric ones of the interfaces that are up; loopback comes last.
[[nodiscard]] std::vector<std::string> own_addresses();

// What a rank says first; anything else is not of this run.
struct Hello {
  std::uint64_t token = 0;
  std::uint64_t rank = 0;
};

// The next connection that says a hello with that token, before the deadline.
struct Caller {
  Descriptor socket;
  std::size_t rank = 0;
};
[[nodiscard]] Result<Caller> accept_caller(const ListeningSocket& listening, std::uint64_t token,
                                           std::chrono::steady_clock::time_point deadline);
// Tries one address after the other until one of them welcomes the hello.
[[nodiscard]] Result<Descriptor> call_rank_0(const std::vector<std::string>& addresses,
                                             std::uint16_t port, const Hello& hello);

// Never waits. False where the connection is broken.
bool send_now(const Descriptor& socket, std::string_view bytes);

}  // namespace weir
