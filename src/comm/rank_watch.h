#pragma once
// Notices that a rank is gone or hangs, whatever the ranks are busy with. Every rank has a small
// thread that tells rank 0 twice a second, over a TCP connection of its own, that its process runs;
// rank 0's tells the others the same. A rank whose connection breaks has died; one that is not
// heard of for `patience` is stopped or cut off. Then all ranks end, and one of them says why.
//
// How long a rank computes does not matter: the thread beats beside it, and what it needs of a busy
// core it gets at once, as it sleeps nearly all the time. A process that was stopped itself, as all
// of a suspended machine are, does not hold the pause against the others. MPI is not used: its
// calls come from one thread at a time, and wait for whom they wait for.
//
//   rank 0:  WatchPost::open --> its directions() to all others --> lead_watch --> start
//   others:  join_watch --> start

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "base/result.h"
#include "comm/watch_sockets.h"

namespace weir {

struct LostRank {
  std::size_t rank = 0;
  std::string cause;
};

struct WatchOptions {
  std::size_t rank = 0;
  std::size_t size = 1;
  std::chrono::milliseconds beat{500};
  std::chrono::milliseconds patience{5000};
  // Called once, by the watch's own thread, when this process is to end, which it has to do itself.
  // nullopt: another rank says why.
  std::function<void(const std::optional<LostRank>&)> on_loss;
};

// Where several ranks notice the same thing, each lets those before it speak for so long.
[[nodiscard]] std::chrono::milliseconds turn_to_speak(std::size_t rank);

class RankWatch {
 public:
  RankWatch() = default;
  RankWatch(const RankWatch&) = delete;
  RankWatch& operator=(const RankWatch&) = delete;
  // Leaves in order. Rank 0 waits until all others have left, or ends as for any loss.
  virtual ~RankWatch() = default;

  // Once, before all else. Where no thread can be started, this rank is not watched, as it keeps
  // silent, and the others have to hear of it otherwise.
  [[nodiscard]] virtual Status start() = 0;
  // This rank cannot go on: rank 0 hears the cause, says it, and all end, this one by on_loss.
  virtual void give_up(const std::string& cause) = 0;
  // On rank 0: the others end, as what is to be said has been said. This process goes on.
  virtual void dismiss() = 0;
};

// Where rank 0 waits for the others, on all of its addresses.
class WatchPost {
 public:
  [[nodiscard]] static Result<WatchPost> open(std::size_t num_ranks);

  // For join_watch: "TOKEN PORT ADDRESS ADDRESS ...".
  [[nodiscard]] std::string directions() const;
  [[nodiscard]] const ListeningSocket& listening() const { return listening_; }
  // What tells ranks of this run from anybody else who calls.
  [[nodiscard]] std::uint64_t token() const { return token_; }

 private:
  WatchPost(ListeningSocket listening, std::uint64_t token)
      : listening_(std::move(listening)), token_(token) {}

  ListeningSocket listening_;
  std::uint64_t token_ = 0;
};

// Returns when all others have come; fails where some have not after twice the patience.
[[nodiscard]] Result<std::unique_ptr<RankWatch>> lead_watch(WatchPost post, WatchOptions options);
[[nodiscard]] Result<std::unique_ptr<RankWatch>> join_watch(const std::string& directions,
                                                            WatchOptions options);

}  // namespace weir
