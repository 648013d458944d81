// Ranks that are MPI processes.

#include <mpi.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <fstream>
#include <list>
#include <string_view>
#include <thread>

#include <fmt/format.h>

#include "base/check.h"
#include "comm/back_off.h"
#include "comm/mpi_communicator.h"
#include "comm/rank_watch.h"
#include "comm/ranks.h"
#include "comm/start_guard.h"

namespace weir {
namespace {

// Messages on the control channel; each kind comes in the order sent.
constexpr int kWordTag = 1;
constexpr int kClockTag = 2;
// Of so many there and back, the fastest says most about the clocks.
constexpr int kClockRounds = 20;
// Longest message between ranks: MPI counts in int.
constexpr std::size_t kLongestWord = std::size_t{1} << 30;

std::int64_t steady_now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// Of the running kernel: processes that read the same one read the same steady clock.
std::string boot_id() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string id;
  std::getline(file, id);
  return id;
}

void wait_for(MPI_Request& request) {
  BackOff back_off;
  int done = 0;
  while (MPI_Test(&request, &done, MPI_STATUS_IGNORE), done == 0) back_off.pause();
}

class MpiRanks final : public Ranks {
 public:
  MpiRanks() {
    MPI_Comm_dup(MPI_COMM_WORLD, &control_);
    MPI_Comm_dup(MPI_COMM_WORLD, &channels_.exchanges);
    MPI_Comm_dup(MPI_COMM_WORLD, &channels_.alarms);
    int number = 0;
    MPI_Comm_rank(control_, &number);
    rank_ = static_cast<std::size_t>(number);
    MPI_Comm_size(control_, &number);
    size_ = static_cast<std::size_t>(number);
    clocks_.resize(size_);
    learn_hosts();
    align_clocks();
  }
  MpiRanks(const MpiRanks&) = delete;
  MpiRanks& operator=(const MpiRanks&) = delete;

  // Lets the ranks watch each other. All of them fail where one cannot.
  Status start_watch(const EndOfRun& end) {
    if (size_ == 1) return {};
    WatchOptions options{
        .rank = rank_, .size = size_, .on_loss = [this, end](const std::optional<LostRank>& lost) {
          if (!lost) return end(std::nullopt);
          end(Error{ErrorKind::run_failed, fmt::format("rank {} on host {}: {}", lost->rank,
                                                       host(lost->rank), lost->cause)});
        }};
    std::string problem;
    if (rank_ == 0) {
      auto post = WatchPost::open(size_);
      share_text(post ? post->directions() : "");
      keep_watch(
          post ? lead_watch(*std::move(post), std::move(options)) : tl::unexpected(post.error()),
          problem);
    } else {
      const std::string directions = share_text("");
      if (!directions.empty()) keep_watch(join_watch(directions, std::move(options)), problem);
    }
    return share_problem(problem);
  }

  // MPI_Finalize waits for the others too, but at full speed.
  ~MpiRanks() override {
    for (Outgoing& message : outgoing_) wait_for(message.request);
    MPI_Request everybody = MPI_REQUEST_NULL;
    MPI_Ibarrier(control_, &everybody);
    wait_for(everybody);
    MPI_Comm_free(&channels_.alarms);
    MPI_Comm_free(&channels_.exchanges);
    MPI_Comm_free(&control_);
    MPI_Finalize();  // Still watched: a rank may hang in there too.
  }

  [[nodiscard]] std::size_t rank() const override { return rank_; }
  [[nodiscard]] std::size_t size() const override { return size_; }
  [[nodiscard]] const std::string& host(std::size_t rank) const override { return hosts_[rank]; }
  [[nodiscard]] const std::string& kernel(std::size_t rank) const override {
    return kernels_[rank];
  }
  [[nodiscard]] ClockOffset clock(std::size_t rank) const override { return clocks_[rank]; }

  std::unique_ptr<Communicator> communicator() override { return make_mpi_communicator(channels_); }

  void send(std::size_t to, std::span<const std::byte> bytes) override {
    CHECK(to != rank_ && to < size_, "a rank sends to another one");
    CHECK(bytes.size() <= kLongestWord, "messages between ranks are below a GiB");
    drop_sent();
    if (outgoing_.size() >= kMostUnreceived) {
      wait_for(outgoing_.front().request);
      outgoing_.pop_front();
    }
    Outgoing& message = outgoing_.emplace_back();
    message.bytes.assign(bytes.begin(), bytes.end());
    MPI_Isend(message.bytes.data(), static_cast<int>(bytes.size()), MPI_BYTE, static_cast<int>(to),
              kWordTag, control_, &message.request);
  }

  std::vector<std::byte> receive(std::size_t from) override {
    BackOff back_off;
    int found = 0;
    MPI_Message message = MPI_MESSAGE_NULL;
    MPI_Status status;
    while (MPI_Improbe(static_cast<int>(from), kWordTag, control_, &found, &message, &status),
           found == 0) {
      back_off.pause();
    }
    int size = 0;
    MPI_Get_count(&status, MPI_BYTE, &size);
    std::vector<std::byte> bytes(static_cast<std::size_t>(size));
    MPI_Request request = MPI_REQUEST_NULL;
    MPI_Imrecv(bytes.data(), size, MPI_BYTE, &message, &request);
    wait_for(request);
    return bytes;
  }

  void abort(int exit_code) override {
    if (watch_ != nullptr) watch_->dismiss();
    MPI_Abort(MPI_COMM_WORLD, exit_code);
    _exit(exit_code);
  }

  void give_up(const std::string& cause) override {
    CHECK(watch_ != nullptr, "a rank that gives up is one of several");
    watch_->give_up(cause);
    // The watch ends the process, with all others.
    while (true) std::this_thread::sleep_for(std::chrono::seconds(1));
  }

 private:
  // A message that may not have left yet. Two ranks that tell each other something, each before it
  // hears the other, would wait for ever if sending waited.
  struct Outgoing {
    std::vector<std::byte> bytes;
    MPI_Request request = MPI_REQUEST_NULL;
  };

  void drop_sent() {
    std::erase_if(outgoing_, [](Outgoing& message) {
      int sent = 0;
      MPI_Test(&message.request, &sent, MPI_STATUS_IGNORE);
      return sent != 0;
    });
  }

  void learn_hosts() {
    constexpr std::size_t kLongestName = 256;
    const std::string own = host_name() + "\n" + boot_id();
    std::array<char, kLongestName> padded{};
    own.copy(padded.data(), kLongestName - 1);
    std::vector<char> all(size_ * kLongestName);
    MPI_Allgather(padded.data(), kLongestName, MPI_CHAR, all.data(), kLongestName, MPI_CHAR,
                  control_);
    for (std::size_t rank = 0; rank < size_; ++rank) {
      const std::string_view text = &all[rank * kLongestName];
      const std::size_t line = text.find('\n');
      hosts_.emplace_back(text.substr(0, line));
      kernels_.emplace_back(line == std::string_view::npos ? "" : text.substr(line + 1));
    }
  }

  // That of rank 0, on all.
  std::string share_text(std::string text) const {
    auto size = static_cast<int>(text.size());
    MPI_Bcast(&size, 1, MPI_INT, 0, control_);
    text.resize(static_cast<std::size_t>(size));
    MPI_Bcast(text.data(), size, MPI_CHAR, 0, control_);
    return text;
  }

  void keep_watch(Result<std::unique_ptr<RankWatch>> made, std::string& problem) {
    if (!made) {
      problem = made.error().message;
      return;
    }
    watch_ = *std::move(made);
    if (auto started = watch_->start(); !started) problem = started.error().message;
  }

  // The problem of the lowest rank that has one; that of rank 0 follows from others'.
  Status share_problem(const std::string& problem) const {
    constexpr std::size_t kLongestProblem = 1024;
    std::array<char, kLongestProblem> own{};
    problem.copy(own.data(), kLongestProblem - 1);
    std::vector<char> all(size_ * kLongestProblem);
    MPI_Allgather(own.data(), kLongestProblem, MPI_CHAR, all.data(), kLongestProblem, MPI_CHAR,
                  control_);
    for (std::size_t i = 1; i <= size_; ++i) {
      const std::size_t rank = i % size_;
      const std::string_view text = &all[rank * kLongestProblem];
      if (!text.empty())
        return run_failed(fmt::format("rank {} on host {}: {}", rank, host(rank), text));
    }
    return {};
  }

  // Rank 0 asks the others for the time one after the other. Half of a round trip is all that the
  // answer can be off by, whichever way took longer.
  void align_clocks() {
    for (std::size_t other = 1; other < size_; ++other) {
      if (rank_ == other) answer_clock();
      if (rank_ == 0) clocks_[other] = ask_clock(other);
    }
    for (std::size_t other = 1; other < size_; ++other) {
      if (rank_ == 0) {
        MPI_Send(&clocks_[other], sizeof(ClockOffset), MPI_BYTE, static_cast<int>(other), kClockTag,
                 control_);
      } else if (rank_ == other) {
        MPI_Recv(&clocks_[other], sizeof(ClockOffset), MPI_BYTE, 0, kClockTag, control_,
                 MPI_STATUS_IGNORE);
      }
    }
  }

  [[nodiscard]] ClockOffset ask_clock(std::size_t other) const {
    ClockOffset best;
    std::int64_t fastest = 0;
    for (int round = 0; round < kClockRounds; ++round) {
      std::int64_t theirs = 0;
      const std::int64_t sent = steady_now();
      MPI_Sendrecv(&sent, 1, MPI_INT64_T, static_cast<int>(other), kClockTag, &theirs, 1,
                   MPI_INT64_T, static_cast<int>(other), kClockTag, control_, MPI_STATUS_IGNORE);
      const std::int64_t trip = steady_now() - sent;
      if (round > 0 && trip >= fastest) continue;
      fastest = trip;
      best = {.offset = {sent + trip / 2 - theirs}, .error = {(trip + 1) / 2}};
    }
    // One kernel has one clock, unless a time namespace shifts it.
    const bool may_be_one = std::abs(best.offset.ns) <= best.error.ns;
    if (may_be_one && !kernels_[0].empty() && kernels_[0] == kernels_[other]) return {};
    return best;
  }

  void answer_clock() const {
    for (int round = 0; round < kClockRounds; ++round) {
      std::int64_t asked = 0;
      MPI_Recv(&asked, 1, MPI_INT64_T, 0, kClockTag, control_, MPI_STATUS_IGNORE);
      const std::int64_t now = steady_now();
      MPI_Send(&now, 1, MPI_INT64_T, 0, kClockTag, control_);
    }
  }

  MPI_Comm control_ = MPI_COMM_NULL;
  MpiChannels channels_;
  std::size_t rank_ = 0;
  std::size_t size_ = 0;
  std::vector<std::string> hosts_;
  std::vector<std::string> kernels_;  // By boot id.
  std::vector<ClockOffset> clocks_;
  std::list<Outgoing> outgoing_;      // Which stay where they are.
  std::unique_ptr<RankWatch> watch_;  // Null while there is none, and of a single rank.
};

}  // namespace

bool has_mpi() { return true; }

std::string mpi_version() {
  std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> text{};
  int length = 0;
  MPI_Get_library_version(text.data(), &length);
  const std::string_view version(text.data(), static_cast<std::size_t>(length));
  return std::string(version.substr(0, version.find_first_of("\n,")));
}

Result<std::unique_ptr<Ranks>> join_ranks(const Launch& launch, const EndOfRun& end) {
  int initialized = 0;
  MPI_Initialized(&initialized);
  CHECK(initialized == 0, "a process joins its ranks once");
  // Nothing of MPI's start says who is missing or gives up waiting for it.
  const StartGuard guard(launch, host_name(), end);
  int provided = MPI_THREAD_SINGLE;
  // The thread that ends a run (rank_watch.h) is another than the one that works.
  if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided) != MPI_SUCCESS)
    return run_failed(fmt::format("ranks: {} could not be started", mpi_version()));
  if (provided < MPI_THREAD_SERIALIZED) {
    MPI_Finalize();
    return run_failed(
        fmt::format("ranks: found {} without calls from several threads, allowed "
                    "MPI_THREAD_SERIALIZED",
                    mpi_version()));
  }
  auto ranks = std::make_unique<MpiRanks>();
  if (ranks->size() != launch.size) {
    // An Open MPI program under MPICH's mpirun is a single rank of its own, N times over.
    return run_failed(fmt::format(
        "ranks: found {} where {} has started {}: mpirun is not that of {} (under srun: "
        "--mpi=pmix is for Open MPI, --mpi=pmi2 for MPICH)",
        ranks->size(), launch.launcher, launch.size, mpi_version()));
  }
  if (auto watched = ranks->start_watch(end); !watched) return tl::unexpected(watched.error());
  return ranks;
}

}  // namespace weir
