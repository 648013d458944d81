#include <algorithm>
#include <atomic>

#include "base/check.h"
#include "base/patience.h"
#include "comm/communicator.h"

namespace weir {
namespace {

// Looks at the doorbell and the slots, some nanoseconds each, before a device that waits yields.
constexpr int kLooksBeforeYield = 1000;

constexpr std::size_t kCacheLine = 64;

// What one device offers to another. The sender owns it until `posted` grows, the reader until
// `read` has caught up; each writes to a cache line of its own.
// NOLINTNEXTLINE(clang-analyzer-optin.performance.Padding): that is what the padding is for.
struct alignas(kCacheLine) Slot {
  std::atomic<std::uint32_t> posted{0};
  std::uint64_t tag = 0;
  std::span<const std::byte> bytes;
  alignas(kCacheLine) std::atomic<std::uint32_t> read{0};
};

// Counts everything that may let a device go on.
struct alignas(kCacheLine) Doorbell {
  std::atomic<std::uint32_t> rings{0};
  std::atomic<bool> sleeping{false};

  void ring() {
    // Sequentially consistent with `sleeping` in wait(): either the sleeper sees the ring or the
    // ringer the sleeper.
    rings.fetch_add(1);
    if (sleeping.load()) rings.notify_all();
  }
};

struct Fabric {
  explicit Fabric(std::size_t device_count)
      : count(device_count), slots(device_count * device_count), doorbells(device_count) {}

  [[nodiscard]] Slot& slot(std::size_t from, std::size_t to) { return slots[from * count + to]; }

  std::size_t count;
  std::vector<Slot> slots;
  std::vector<Doorbell> doorbells;
  std::atomic<bool> aborted{false};
};

class ThreadCommunicator final : public Communicator {
 public:
  ThreadCommunicator(std::shared_ptr<Fabric> fabric, std::size_t self,
                     Patience::Clock::duration awake)
      : fabric_(std::move(fabric)), self_(self), awake_(awake) {}

  void start(std::uint64_t tag, std::span<const OutgoingMessage> outgoing,
             std::span<const IncomingMessage> incoming) override {
    tag_ = tag;
    outgoing_.assign(outgoing.begin(), outgoing.end());
    incoming_.assign(incoming.begin(), incoming.end());
    for (const OutgoingMessage& message : outgoing_) {
      Slot& slot = fabric_->slot(self_, index_of(message.to));
      slot.tag = tag;
      slot.bytes = message.bytes;
      slot.posted.fetch_add(1, std::memory_order_release);
      fabric_->doorbells[index_of(message.to)].ring();
    }
  }

  bool arrived() override {
    return std::ranges::all_of(incoming_, [&](const IncomingMessage& message) {
      const Slot& slot = fabric_->slot(index_of(message.from), self_);
      return slot.posted.load(std::memory_order_acquire) !=
             slot.read.load(std::memory_order_relaxed);
    });
  }

  std::span<const std::byte> message(std::size_t i) override {
    const Slot& slot = fabric_->slot(index_of(incoming_[i].from), self_);
    CHECK(slot.tag == tag_ && slot.bytes.size() == incoming_[i].size,
          "sender and receiver disagree about a message");
    return slot.bytes;
  }

  void finish() override {
    for (const IncomingMessage& message : incoming_) {
      fabric_->slot(index_of(message.from), self_).read.fetch_add(1, std::memory_order_release);
      fabric_->doorbells[index_of(message.from)].ring();
    }
    incoming_.clear();
  }

  bool over() override {
    return std::ranges::all_of(outgoing_, [&](const OutgoingMessage& message) {
      const Slot& slot = fabric_->slot(self_, index_of(message.to));
      return slot.read.load(std::memory_order_acquire) ==
             slot.posted.load(std::memory_order_relaxed);
    });
  }

  std::uint32_t events() override {
    return fabric_->doorbells[self_].rings.load(std::memory_order_acquire);
  }

  void wait(std::uint32_t seen) override {
    Doorbell& doorbell = fabric_->doorbells[self_];
    // Slots change before the doorbell rings: who looks at them too need not wait for the cache
    // line of the doorbell, and then for theirs.
    const bool had_arrived = arrived();
    const bool was_over = over();
    Patience patience(kLooksBeforeYield, awake_);
    do {
      if (doorbell.rings.load(std::memory_order_acquire) != seen) return;
      if ((!had_arrived && arrived()) || (!was_over && over())) return;
    } while (patience.pause());
    doorbell.sleeping.store(true);
    doorbell.rings.wait(seen);
    doorbell.sleeping.store(false);
  }

  void abort() override {
    fabric_->aborted.store(true);
    for (Doorbell& doorbell : fabric_->doorbells) doorbell.ring();
  }

  bool aborted() override { return fabric_->aborted.load(std::memory_order_acquire); }

 private:
  std::shared_ptr<Fabric> fabric_;  // Shared by the endpoints: the last one to go takes it along.
  std::size_t self_;
  Patience::Clock::duration awake_;
  std::uint64_t tag_ = 0;
  std::vector<OutgoingMessage> outgoing_;
  std::vector<IncomingMessage> incoming_;
};

}  // namespace

std::vector<std::unique_ptr<Communicator>> make_thread_communicators(
    std::size_t count, Patience::Clock::duration awake) {
  const auto fabric = std::make_shared<Fabric>(count);
  std::vector<std::unique_ptr<Communicator>> communicators;
  for (std::size_t device = 0; device < count; ++device) {
    communicators.push_back(std::make_unique<ThreadCommunicator>(fabric, device, awake));
  }
  return communicators;
}

}  // namespace weir
