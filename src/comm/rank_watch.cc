#include "comm/rank_watch.h"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <mutex>
#include <random>
#include <sstream>
#include <string_view>
#include <system_error>
#include <thread>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/check.h"
#include "comm/watch_words.h"

namespace weir {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

struct Link {
  Descriptor socket;
  std::size_t rank = 0;
  Clock::time_point heard;
  bool left = false;
  WatchEar ear = {};
};

// A signal sent to the process is for another thread.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_{};
};

class SocketWatch final : public RankWatch {
 public:
  SocketWatch(WatchOptions options, std::vector<Link> links)
      : options_(std::move(options)),
        links_(std::move(links)),
        wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    CHECK(wake_, "an eventfd can be made");
  }
  SocketWatch(const SocketWatch&) = delete;
  SocketWatch& operator=(const SocketWatch&) = delete;

  ~SocketWatch() override {
    if (!thread_.joinable()) {
      tell(WatchWord::goodbye);
      return;
    }
    leaving_ = true;
    wake();
    thread_.join();
  }

  Status start() override {
    for (Link& link : links_) link.heard = Clock::now();
    const SignalsBlocked blocked;
    try {
      thread_ = std::thread([this] { watch(); });
    } catch (const std::system_error& error) {
      return run_failed(fmt::format("cannot start a thread: {}", error.what()));
    }
    return {};
  }

  void give_up(const std::string& cause) override {
    {
      const std::lock_guard lock(mutex_);
      if (own_cause_) return;
      own_cause_ = cause;
    }
    wake();
  }

  // From another thread than the watch's, which alone knows who has left: those do not mind.
  void dismiss() override {
    dismissed_ = true;
    for (const Link& link : links_) send_word(link, WatchWord::end);
  }

 private:
  [[nodiscard]] bool leads() const { return options_.rank == 0; }

  void wake() const { eventfd_write(wake_.get(), 1); }

  static void send_word(const Link& link, WatchWord word) {
    const char byte = static_cast<char>(word);
    send_now(link.socket, {&byte, 1});
  }

  void tell(WatchWord word) const {
    for (const Link& link : links_) {
      if (!link.left) send_word(link, word);
    }
  }

  void watch() {
    auto next_beat = Clock::now();
    auto last_look = next_beat;
    while (!over_) {
      const auto before = Clock::now();
      if (before >= next_beat) {
        tell(WatchWord::beat);
        next_beat = before + options_.beat;
      }
      sleep_until(next_beat);
      const auto now = Clock::now();
      // This process was stopped meanwhile, or starved: perhaps the others were too.
      const auto pause = now - last_look - options_.beat;
      if (pause > options_.beat) {
        for (Link& link : links_) link.heard += pause;
      }
      last_look = now;
      listen(now, pause > options_.patience);
      if (!over_) speak();
    }
  }

  // Or until something has come.
  void sleep_until(Clock::time_point time) {
    entries_.clear();
    entries_.push_back({.fd = wake_.get(), .events = POLLIN, .revents = 0});
    for (const Link& link : links_)
      entries_.push_back(
          {.fd = link.left ? -1 : link.socket.get(), .events = POLLIN, .revents = 0});
    const auto left = std::chrono::ceil<milliseconds>(time - Clock::now()).count();
    poll(entries_.data(), entries_.size(), static_cast<int>(std::max<std::int64_t>(left, 0)));
    eventfd_t ignored = 0;
    eventfd_read(wake_.get(), &ignored);
  }

  // Reads what all have said before it judges any: whoever has been told to end does not care who
  // else has gone.
  void listen(Clock::time_point now, bool was_stopped) {
    std::optional<LostRank> lost;
    for (Link& link : links_) {
      if (link.left) continue;
      const bool is_open = read_from(link, now);
      if (over_) return;
      if (link.left || lost) continue;
      if (!is_open) {
        lost = LostRank{.rank = link.rank, .cause = "died (killed, or crashed)"};
      } else if (now - link.heard > options_.patience) {
        lost =
            LostRank{.rank = link.rank,
                     .cause = fmt::format("not heard of for {:.1f} s (stopped, or cut off)",
                                          std::chrono::duration<double>(now - link.heard).count())};
      }
    }
    if (!lost) return;
    // The others have given this one up and gone.
    if (was_stopped) return end(std::nullopt);
    lose(*lost);
  }

  // False where the connection has ended.
  bool read_from(Link& link, Clock::time_point now) {
    std::array<char, 512> bytes{};
    while (!over_ && !link.left) {
      const ssize_t count = recv(link.socket.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return errno == EAGAIN;
      if (count == 0) return false;
      link.heard = now;
      hear(link, {bytes.data(), static_cast<std::size_t>(count)});
    }
    return true;
  }

  void hear(Link& link, std::string_view words) {
    switch (link.ear.hear(words)) {
      case WatchEar::Heard::nothing:
        return;
      case WatchEar::Heard::goodbye:
        link.left = true;
        return;
      case WatchEar::Heard::cause:
        return lose({.rank = link.rank, .cause = link.ear.cause()});
      case WatchEar::Heard::end:
        return end(std::nullopt);
    }
  }

  // What this process itself has to say.
  void speak() {
    std::optional<std::string> cause;
    {
      const std::lock_guard lock(mutex_);
      if (!told_ && own_cause_) cause = own_cause_;
      told_ = told_ || cause.has_value();
    }
    if (cause && leads()) {
      lose({.rank = 0, .cause = *cause});
    } else if (cause) {
      send_now(links_.front().socket, cause_line(*cause));
    }
    if (over_ || told_ || !leaving_) return;
    if (!leads()) tell(WatchWord::goodbye);
    over_ = !leads() || std::ranges::all_of(links_, &Link::left);
  }

  void lose(const LostRank& lost) {
    if (!leads()) std::this_thread::sleep_for(turn_to_speak(options_.rank));
    tell(WatchWord::end);  // Also to the lost one, which may come to itself and wonder where the
                           // others are.
    end(lost);
  }

  void end(const std::optional<LostRank>& lost) {
    over_ = true;
    if (!dismissed_) options_.on_loss(lost);  // Else the others end, as they have been told to.
  }

  const WatchOptions options_;
  std::vector<Link> links_;  // To all others on rank 0, to rank 0 on the others.
  Descriptor wake_;
  std::vector<pollfd> entries_;
  bool over_ = false;
  bool told_ = false;  // Rank 0 knows that this one gives up.
  std::atomic<bool> leaving_{false};
  std::atomic<bool> dismissed_{false};
  std::mutex mutex_;
  std::optional<std::string> own_cause_;
  std::thread thread_;
};

std::uint64_t draw_token() {
  std::random_device random;
  return std::uint64_t{random()} << 32 | random();
}

}  // namespace

milliseconds turn_to_speak(std::size_t rank) {
  if (rank <= 1) return {};
  // Rank 1 speaks for rank 0, and the launcher has ended the rest by then: Open MPI's takes up to
  // 2 s. They are for where ranks 0 and 1 are lost together, with their host.
  return milliseconds(3000) + milliseconds(400) * std::min<std::size_t>(rank - 2, 2);
}

Result<WatchPost> WatchPost::open(std::size_t num_ranks) {
  auto listening = listen_anywhere(num_ranks);
  if (!listening) return tl::unexpected(listening.error());
  return WatchPost(*std::move(listening), draw_token());
}

std::string WatchPost::directions() const {
  return fmt::format("{} {} {}", token_, listening_.port, fmt::join(own_addresses(), " "));
}

Result<std::unique_ptr<RankWatch>> lead_watch(WatchPost post, WatchOptions options) {
  std::vector<Link> links;
  std::vector<bool> there(options.size, false);
  there[0] = true;
  const auto deadline = Clock::now() + 2 * options.patience;
  while (links.size() + 1 < options.size) {
    auto caller = accept_caller(post.listening(), post.token(), deadline);
    if (!caller) break;
    if (caller->rank >= options.size || there[caller->rank]) continue;
    there[caller->rank] = true;
    links.push_back({.socket = std::move(caller->socket), .rank = caller->rank, .heard = {}});
  }
  if (links.size() + 1 < options.size) {
    const auto missing = std::ranges::find(there, false) - there.begin();
    return run_failed(fmt::format("rank {} has not reached rank 0 over TCP", missing));
  }
  return std::make_unique<SocketWatch>(std::move(options), std::move(links));
}

Result<std::unique_ptr<RankWatch>> join_watch(const std::string& directions, WatchOptions options) {
  std::istringstream words(directions);
  Hello hello{.token = 0, .rank = options.rank};
  std::uint16_t port = 0;
  words >> hello.token >> port;
  std::vector<std::string> addresses;
  for (std::string address; words >> address;) addresses.push_back(address);
  auto socket = call_rank_0(addresses, port, hello);
  if (!socket) return tl::unexpected(socket.error());
  std::vector<Link> links;
  links.push_back({.socket = *std::move(socket), .rank = 0, .heard = {}});
  return std::make_unique<SocketWatch>(std::move(options), std::move(links));
}

}  // namespace weir
