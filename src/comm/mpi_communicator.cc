#include "comm/mpi_communicator.h"

#include <algorithm>
#include <vector>

#include "base/check.h"
#include "comm/back_off.h"

namespace weir {
namespace {

// MPI counts in int; longer messages go in pieces of this size.
constexpr std::size_t kLargestPiece = std::size_t{64} << 20;
// The smallest upper limit of tags that MPI allows.
constexpr std::uint64_t kMpiTags = 32768;

// MPI's tag only shows that two devices have come apart; which message comes next is known.
int mpi_tag(std::uint64_t tag) { return static_cast<int>((tag ^ (tag >> 32) * 31) % kMpiTags); }

int rank_of(DeviceId device) { return static_cast<int>(index_of(device)); }

// Calls `use` for every piece of a message: a message of no bytes is one piece of none.
template <class Use>
void for_pieces(std::size_t size, Use use) {
  std::size_t begin = 0;
  do {
    const std::size_t piece = std::min(size - begin, kLargestPiece);
    use(begin, static_cast<int>(piece));
    begin += piece;
  } while (begin < size);
}

// Requests that are under way; completed ones are dropped.
class Requests {
 public:
  MPI_Request& add() { return pending_.emplace_back(MPI_REQUEST_NULL); }
  [[nodiscard]] bool empty() const { return pending_.empty(); }

  // Calls `done` with the status of each that has completed since the last call; true if any has.
  template <class Done>
  bool test(Done done) {
    if (pending_.empty()) return false;
    int count = 0;
    indices_.resize(pending_.size());
    statuses_.resize(pending_.size());
    MPI_Testsome(static_cast<int>(pending_.size()), pending_.data(), &count, indices_.data(),
                 statuses_.data());
    if (count <= 0) return false;
    for (int i = 0; i < count; ++i) done(statuses_[static_cast<std::size_t>(i)]);
    std::erase(pending_, MPI_REQUEST_NULL);
    return true;
  }

  // What has not completed is given up: memory it refers to may go away only with the process.
  void abandon() {
    for (MPI_Request& request : pending_) MPI_Request_free(&request);
    pending_.clear();
  }

 private:
  std::vector<MPI_Request> pending_;
  std::vector<int> indices_;
  std::vector<MPI_Status> statuses_;
};

// Memory for one incoming message, kept from exchange to exchange.
struct Inbox {
  std::unique_ptr<std::byte[]> bytes;  // NOLINT(*-avoid-c-arrays): a vector would write zeros.
  std::size_t capacity = 0;

  std::byte* at_least(std::size_t size) {
    if (size > capacity || bytes == nullptr) {
      bytes.reset(new std::byte[std::max<std::size_t>(size, 1)]);
      capacity = size;
    }
    return bytes.get();
  }
};

class MpiCommunicator final : public Communicator {
 public:
  explicit MpiCommunicator(const MpiChannels& channels) : channels_(channels) {
    MPI_Irecv(nullptr, 0, MPI_BYTE, MPI_ANY_SOURCE, MPI_ANY_TAG, channels_.alarms, &alarm_);
  }
  MpiCommunicator(const MpiCommunicator&) = delete;
  MpiCommunicator& operator=(const MpiCommunicator&) = delete;

  ~MpiCommunicator() override {
    receiving_.abandon();
    sending_.abandon();
    if (alarm_ != MPI_REQUEST_NULL) {
      MPI_Cancel(&alarm_);
      MPI_Wait(&alarm_, MPI_STATUS_IGNORE);
    }
  }

  void start(std::uint64_t tag, std::span<const OutgoingMessage> outgoing,
             std::span<const IncomingMessage> incoming) override {
    CHECK(receiving_.empty() && sending_.empty(), "an exchange begins when the last one is over");
    tag_ = mpi_tag(tag);
    incoming_.assign(incoming.begin(), incoming.end());
    received_ = 0;
    expected_ = 0;
    if (inboxes_.size() < incoming.size()) inboxes_.resize(incoming.size());
    for (std::size_t i = 0; i < incoming.size(); ++i) {
      std::byte* const memory = inboxes_[i].at_least(incoming[i].size);
      expected_ += incoming[i].size;
      for_pieces(incoming[i].size, [&](std::size_t begin, int size) {
        MPI_Irecv(memory + begin, size, MPI_BYTE, rank_of(incoming[i].from), MPI_ANY_TAG,
                  channels_.exchanges, &receiving_.add());
      });
    }
    for (const OutgoingMessage& message : outgoing) {
      for_pieces(message.bytes.size(), [&](std::size_t begin, int size) {
        MPI_Isend(message.bytes.data() + begin, size, MPI_BYTE, rank_of(message.to), tag_,
                  channels_.exchanges, &sending_.add());
      });
    }
  }

  bool arrived() override {
    if (!receiving_.empty()) look();
    return receiving_.empty();
  }

  std::span<const std::byte> message(std::size_t i) override {
    return {inboxes_[i].bytes.get(), incoming_[i].size};
  }

  void finish() override { incoming_.clear(); }

  bool over() override {
    if (!sending_.empty()) look();
    return sending_.empty();
  }

  std::uint32_t events() override { return events_; }

  void wait(std::uint32_t seen) override {
    BackOff back_off;
    while (events_ == seen && !look() && !hear_alarm()) back_off.pause();
  }

  void abort() override {
    if (aborted_) return;
    aborted_ = true;
    int rank = 0;
    int size = 0;
    MPI_Comm_rank(channels_.alarms, &rank);
    MPI_Comm_size(channels_.alarms, &size);
    for (int other = 0; other < size; ++other) {
      if (other == rank) continue;
      MPI_Request request = MPI_REQUEST_NULL;
      MPI_Isend(nullptr, 0, MPI_BYTE, other, 0, channels_.alarms, &request);
      MPI_Request_free(&request);
    }
  }

  // An alarm is heard while waiting: a device that has work is not held up by one that failed.
  bool aborted() override { return aborted_; }

 private:
  // Lets MPI move data; true if anything that this device waits for has happened.
  bool look() {
    bool moved = receiving_.test([&](const MPI_Status& status) { note_arrival(status); });
    if (receiving_.empty())
      CHECK(received_ == expected_, "sender and receiver disagree about a message");
    moved = sending_.test([](const MPI_Status&) {}) || moved;
    if (moved) ++events_;
    return moved;
  }

  bool hear_alarm() {
    if (aborted_) return true;
    int rung = 0;
    MPI_Test(&alarm_, &rung, MPI_STATUS_IGNORE);
    aborted_ = rung != 0;
    if (aborted_) ++events_;
    return aborted_;
  }

  void note_arrival(const MPI_Status& status) {
    int size = 0;
    MPI_Get_count(&status, MPI_BYTE, &size);
    received_ += static_cast<std::size_t>(size);
    CHECK(status.MPI_TAG == tag_, "sender and receiver disagree about a message");
  }

  MpiChannels channels_;
  MPI_Request alarm_ = MPI_REQUEST_NULL;
  bool aborted_ = false;
  std::uint32_t events_ = 0;
  int tag_ = 0;
  std::size_t received_ = 0;  // Bytes of this exchange,
  std::size_t expected_ = 0;  // of so many.
  std::vector<IncomingMessage> incoming_;
  std::vector<Inbox> inboxes_;
  Requests receiving_;
  Requests sending_;
};

}  // namespace

std::unique_ptr<Communicator> make_mpi_communicator(const MpiChannels& channels) {
  return std::make_unique<MpiCommunicator>(channels);
}

}  // namespace weir
