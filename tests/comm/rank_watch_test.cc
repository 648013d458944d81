// Watches of several ranks in one process. A rank that does not beat is what a stopped process
// looks like from outside.

#include "comm/rank_watch.h"

#include <condition_variable>
#include <future>
#include <mutex>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace weir {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kBeat{20};
// So long that a busy machine does not starve a thread for longer.
constexpr milliseconds kPatience{2000};
constexpr milliseconds kNever{3'600'000};
constexpr std::chrono::seconds kSoon{30};

// What a rank's watch has said.
class Ending {
 public:
  void note(const std::optional<LostRank>& lost) {
    const std::lock_guard lock(mutex_);
    ++times_;
    lost_ = lost;
    changed_.notify_all();
  }
  [[nodiscard]] bool comes() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kSoon, [this] { return times_ > 0; });
  }
  [[nodiscard]] int times() {
    const std::lock_guard lock(mutex_);
    return times_;
  }
  [[nodiscard]] std::optional<LostRank> lost() {
    const std::lock_guard lock(mutex_);
    return lost_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int times_ = 0;
  std::optional<LostRank> lost_;
};

// Rank `silent` does not beat.
class Watches {
 public:
  explicit Watches(std::size_t count, std::size_t silent = SIZE_MAX,
                   milliseconds patience = kPatience)
      : endings_(count), watches_(count) {
    auto post = WatchPost::open(count);
    EXPECT_TRUE(post);
    const std::string directions = post->directions();
    std::vector<std::future<Result<std::unique_ptr<RankWatch>>>> others;
    const auto options = [&](std::size_t rank) {
      return WatchOptions{.rank = rank,
                          .size = count,
                          .beat = rank == silent ? kNever : kBeat,
                          .patience = rank == silent ? kNever : patience,
                          .on_loss = [this, rank](const std::optional<LostRank>& lost) {
                            endings_[rank].note(lost);
                          }};
    };
    for (std::size_t rank = 1; rank < count; ++rank) {
      others.push_back(std::async(std::launch::async, [directions, made = options(rank)] {
        return join_watch(directions, made);
      }));
    }
    auto first = lead_watch(*std::move(post), options(0));
    EXPECT_TRUE(first) << first.error().message;
    watches_[0] = *std::move(first);
    EXPECT_TRUE(watches_[0]->start());
    for (std::size_t rank = 1; rank < count; ++rank) {
      auto other = others[rank - 1].get();
      EXPECT_TRUE(other) << other.error().message;
      watches_[rank] = *std::move(other);
      EXPECT_TRUE(watches_[rank]->start());
    }
  }

  [[nodiscard]] RankWatch& watch(std::size_t rank) { return *watches_[rank]; }
  [[nodiscard]] Ending& ending(std::size_t rank) { return endings_[rank]; }
  // All at once, as rank 0 waits for the others.
  void leave() {
    std::vector<std::thread> leaving;
    for (auto& watch : watches_) leaving.emplace_back([&watch] { watch.reset(); });
    for (std::thread& thread : leaving) thread.join();
  }

 private:
  std::vector<Ending> endings_;
  std::vector<std::unique_ptr<RankWatch>> watches_;
};

TEST(RankWatch, LetsRanksWorkAndLeaveInPeace) {
  Watches watches(4);
  std::this_thread::sleep_for(kBeat * 10);
  watches.leave();
  for (std::size_t rank = 0; rank < 4; ++rank) EXPECT_EQ(watches.ending(rank).times(), 0);
}

TEST(RankWatch, NamesTheRankThatIsNotHeardOf) {
  Watches watches(3, 2, milliseconds(200));
  ASSERT_TRUE(watches.ending(0).comes());
  ASSERT_TRUE(watches.ending(0).lost());
  EXPECT_EQ(watches.ending(0).lost()->rank, 2U);
  EXPECT_NE(watches.ending(0).lost()->cause.find("not heard of for 0."), std::string::npos);
  ASSERT_TRUE(watches.ending(1).comes());
  EXPECT_FALSE(watches.ending(1).lost());  // Rank 0 speaks.
  watches.leave();
}

TEST(RankWatch, NoticesThatRank0IsNotHeardOf) {
  Watches watches(2, 0, milliseconds(200));
  ASSERT_TRUE(watches.ending(1).comes());
  ASSERT_TRUE(watches.ending(1).lost());
  EXPECT_EQ(watches.ending(1).lost()->rank, 0U);
  watches.leave();
}

TEST(RankWatch, PassesOnWhyARankGivesUp) {
  Watches watches(3);
  watches.watch(2).give_up("out of memory\nand more");
  for (std::size_t rank = 0; rank < 3; ++rank) ASSERT_TRUE(watches.ending(rank).comes());
  ASSERT_TRUE(watches.ending(0).lost());
  EXPECT_EQ(watches.ending(0).lost()->rank, 2U);
  EXPECT_EQ(watches.ending(0).lost()->cause, "out of memory and more");
  EXPECT_FALSE(watches.ending(1).lost());
  EXPECT_FALSE(watches.ending(2).lost());
  watches.leave();
  for (std::size_t rank = 0; rank < 3; ++rank) EXPECT_EQ(watches.ending(rank).times(), 1);
}

TEST(RankWatch, OfRank0SaysItsOwnCauseAndDismissesTheOthers) {
  Watches watches(2);
  watches.watch(0).give_up("bad luck");
  for (std::size_t rank = 0; rank < 2; ++rank) ASSERT_TRUE(watches.ending(rank).comes());
  EXPECT_EQ(watches.ending(0).lost()->cause, "bad luck");
  EXPECT_FALSE(watches.ending(1).lost());
  watches.leave();
}

TEST(RankWatch, EndsOthersWithoutAWordWhenDismissed) {
  Watches watches(3);
  watches.watch(0).dismiss();
  for (std::size_t rank = 1; rank < 3; ++rank) {
    ASSERT_TRUE(watches.ending(rank).comes());
    EXPECT_FALSE(watches.ending(rank).lost());
  }
}

// A process that dies closes its connection, and says nothing before.
TEST(RankWatch, SaysThatARankHasDied) {
  auto post = WatchPost::open(2);
  ASSERT_TRUE(post);
  Ending ending;
  auto caller = std::async(std::launch::async, [&] {
    std::vector<std::string> addresses = own_addresses();
    return call_rank_0(addresses, post->listening().port, {.token = post->token(), .rank = 1});
  });
  auto accepted =
      accept_caller(post->listening(), post->token(), std::chrono::steady_clock::now() + kSoon);
  ASSERT_TRUE(accepted);
  EXPECT_EQ(accepted->rank, 1U);
  auto socket = caller.get();
  ASSERT_TRUE(socket);
  // Again, as the first one was to be looked at.
  auto again =
      std::async(std::launch::async, [&, port = post->listening().port, token = post->token()] {
        return call_rank_0(own_addresses(), port, {.token = token, .rank = 1});
      });
  auto watch =
      lead_watch(*std::move(post), {.rank = 0,
                                    .size = 2,
                                    .beat = kBeat,
                                    .patience = kPatience,
                                    .on_loss = [&](const auto& lost) { ending.note(lost); }});
  ASSERT_TRUE(watch) << watch.error().message;
  ASSERT_TRUE((*watch)->start());
  (void)again.get();  // Its end closes the connection.
  ASSERT_TRUE(ending.comes());
  ASSERT_TRUE(ending.lost());
  EXPECT_EQ(ending.lost()->rank, 1U);
  EXPECT_NE(ending.lost()->cause.find("died"), std::string::npos);
}

TEST(RankWatch, ListensToNobodyWithoutTheToken) {
  auto post = WatchPost::open(2);
  ASSERT_TRUE(post);
  const auto token = post->token();
  auto stranger = std::async(std::launch::async, [&] {
    return call_rank_0({"127.0.0.1"}, post->listening().port, {.token = token + 1, .rank = 1});
  });
  const auto accepted =
      accept_caller(post->listening(), token, std::chrono::steady_clock::now() + milliseconds(300));
  EXPECT_FALSE(accepted);
  EXPECT_FALSE(stranger.get());
}

// One whose thread could not be started lets the others leave in peace.
TEST(RankWatch, IsLeftInPeaceByARankThatIsNotWatched) {
  auto post = WatchPost::open(2);
  ASSERT_TRUE(post);
  Ending ending;
  auto other = std::async(std::launch::async, [directions = post->directions()] {
    return join_watch(directions, {.rank = 1, .size = 2, .on_loss = {}});
  });
  auto watch =
      lead_watch(*std::move(post), {.rank = 0,
                                    .size = 2,
                                    .beat = kBeat,
                                    .patience = kPatience,
                                    .on_loss = [&](const auto& lost) { ending.note(lost); }});
  ASSERT_TRUE(watch) << watch.error().message;
  ASSERT_TRUE((*watch)->start());
  { const auto unwatched = other.get(); }
  watch->reset();
  EXPECT_EQ(ending.times(), 0);
}

TEST(RankWatch, NamesARankThatDoesNotCome) {
  auto post = WatchPost::open(2);
  ASSERT_TRUE(post);
  const auto watch = lead_watch(
      *std::move(post),
      {.rank = 0, .size = 2, .beat = kBeat, .patience = milliseconds(50), .on_loss = {}});
  ASSERT_FALSE(watch);
  EXPECT_EQ(watch.error().message, "rank 1 has not reached rank 0 over TCP");
}

}  // namespace
}  // namespace weir
