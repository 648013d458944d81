#include "comm/watch_sockets.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>
#include <system_error>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace weir {
namespace {

using Clock = std::chrono::steady_clock;

// A stranger who connects and says nothing holds rank 0 up no longer.
constexpr std::chrono::milliseconds kForHello{1000};
// An address that answers does so at once; one that nobody has takes for ever.
constexpr std::chrono::milliseconds kForConnecting{1000};
// Rank 0 welcomes callers one after the other.
constexpr std::chrono::milliseconds kForWelcome{5000};
constexpr char kWelcome = 'k';

std::string last_error() { return std::generic_category().message(errno); }

// Whether the socket is ready for `events` before the deadline.
bool wait_ready(const Descriptor& socket, short events, Clock::time_point deadline) {
  while (true) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
    pollfd entry{.fd = socket.get(), .events = events, .revents = 0};
    const int ready = poll(&entry, 1, static_cast<int>(std::max<std::int64_t>(left.count(), 0)));
    if (ready > 0) return true;
    if (ready == 0 || errno != EINTR) return false;
  }
}

bool receive_all(const Descriptor& socket, void* memory, std::size_t size,
                 Clock::time_point deadline) {
  auto* to = static_cast<char*>(memory);
  while (size > 0) {
    if (!wait_ready(socket, POLLIN, deadline)) return false;
    const ssize_t count = recv(socket.get(), to, size, MSG_DONTWAIT);
    if (count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR)) return false;
    if (count < 0) continue;
    to += count;
    size -= static_cast<std::size_t>(count);
  }
  return true;
}

// Beats are small and must not wait for each other.
void send_at_once(const Descriptor& socket) {
  const int on = 1;
  setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

std::optional<ListeningSocket> try_listening(int family, std::size_t backlog) {
  Descriptor socket(::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) return std::nullopt;
  sockaddr_storage address{};
  address.ss_family = static_cast<sa_family_t>(family);  // All zero: any address, any port.
  socklen_t length = family == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
  if (family == AF_INET6) {
    const int off = 0;  // IPv4 comes in too.
    if (setsockopt(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)) != 0)
      return std::nullopt;
  }
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  if (bind(socket.get(), generic, length) != 0 ||
      listen(socket.get(), static_cast<int>(backlog)) != 0 ||
      getsockname(socket.get(), generic, &length) != 0)
    return std::nullopt;
  const in_port_t port = family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(generic)->sin6_port
                                            : reinterpret_cast<sockaddr_in*>(generic)->sin_port;
  return ListeningSocket{.socket = std::move(socket), .port = ntohs(port)};
}

Descriptor connect_to(const std::string& address, std::uint16_t port, Clock::time_point deadline) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  if (getaddrinfo(address.c_str(), std::to_string(port).c_str(), &hints, &found) != 0) return {};
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owned(found, freeaddrinfo);
  Descriptor socket(::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) return {};
  if (connect(socket.get(), found->ai_addr, found->ai_addrlen) != 0) {
    if (errno != EINPROGRESS || !wait_ready(socket, POLLOUT, deadline)) return {};
    int problem = 0;
    socklen_t length = sizeof(problem);
    getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &problem, &length);
    if (problem != 0) return {};
  }
  return socket;
}

}  // namespace

Descriptor::~Descriptor() {
  if (number_ >= 0) close(number_);
}

Result<ListeningSocket> listen_anywhere(std::size_t backlog) {
  for (const int family : {AF_INET6, AF_INET}) {
    if (auto socket = try_listening(family, backlog)) return *std::move(socket);
  }
  return run_failed(fmt::format("ranks: rank 0 cannot listen on a TCP port: {}", last_error()));
}

std::vector<std::string> own_addresses() {
  ifaddrs* first = nullptr;
  if (getifaddrs(&first) != 0) return {};
  const std::unique_ptr<ifaddrs, void (*)(ifaddrs*)> owned(first, freeifaddrs);
  std::vector<std::string> outward;
  std::vector<std::string> loopback;
  for (const ifaddrs* entry = first; entry != nullptr; entry = entry->ifa_next) {
    if (entry->ifa_addr == nullptr || (entry->ifa_flags & IFF_UP) == 0) continue;
    const int family = entry->ifa_addr->sa_family;
    if (family != AF_INET && family != AF_INET6) continue;
    const socklen_t length = family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
    std::array<char, NI_MAXHOST> text{};
    if (getnameinfo(entry->ifa_addr, length, text.data(), text.size(), nullptr, 0,
                    NI_NUMERICHOST) != 0)
      continue;
    const std::string address = text.data();
    if (address.find('%') != std::string::npos) continue;  // Means something on one link only.
    ((entry->ifa_flags & IFF_LOOPBACK) != 0 ? loopback : outward).push_back(address);
  }
  std::ranges::move(loopback, std::back_inserter(outward));
  return outward;
}

Result<Caller> accept_caller(const ListeningSocket& listening, std::uint64_t token,
                             Clock::time_point deadline) {
  while (wait_ready(listening.socket, POLLIN, deadline)) {
    Descriptor socket(
        accept4(listening.socket.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket) continue;
    Hello hello;
    const auto patience = std::min(deadline, Clock::now() + kForHello);
    if (!receive_all(socket, &hello, sizeof(hello), patience) || hello.token != token) continue;
    send_at_once(socket);
    if (send_now(socket, {&kWelcome, 1}))
      return Caller{.socket = std::move(socket), .rank = static_cast<std::size_t>(hello.rank)};
  }
  return run_failed("nobody else has called");
}

Result<Descriptor> call_rank_0(const std::vector<std::string>& addresses, std::uint16_t port,
                               const Hello& hello) {
  for (const std::string& address : addresses) {
    Descriptor socket = connect_to(address, port, Clock::now() + kForConnecting);
    if (!socket) continue;
    send_at_once(socket);
    std::array<char, sizeof(Hello)> bytes{};
    std::memcpy(bytes.data(), &hello, sizeof(hello));
    char answer = 0;
    if (send_now(socket, {bytes.data(), bytes.size()}) &&
        receive_all(socket, &answer, 1, Clock::now() + kForWelcome) && answer == kWelcome)
      return socket;
  }
  return run_failed(fmt::format("cannot reach rank 0 over TCP on port {} of {}", port,
                                fmt::join(addresses, ", ")));
}

bool send_now(const Descriptor& socket, std::string_view bytes) {
  ssize_t sent = 0;
  do {
    sent = send(socket.get(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  // A full buffer is that of somebody who does not read: silence will show it.
  return sent >= 0 || errno == EAGAIN;
}

}  // namespace weir
