#pragma once
// How devices hand data to each other. One endpoint per device; all communication is an Exchange: a
// device offers some messages, expects some, and reads those it got before it finishes. Every
// collective is made of exchanges.
//
// Between two devices exchanges happen in the same order on both sides (the validator has proven
// it), so a message needs no address but its sender; the tag is checked, never searched for.
// Nothing here knows of plans or tensors.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/ids.h"
#include "base/patience.h"

namespace weir {

struct OutgoingMessage {
  DeviceId to{};
  std::span<const std::byte> bytes;  // Stays valid and unchanged until the exchange is over.
};

struct IncomingMessage {
  DeviceId from{};
  std::size_t size = 0;
};

// One device's side of the communication. Used by one thread.
class Communicator {
 public:
  Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;
  virtual ~Communicator() = default;

  // Begins an exchange. At most one message to and one from each device; none to itself. The
  // previous one must be over.
  virtual void start(std::uint64_t tag, std::span<const OutgoingMessage> outgoing,
                     std::span<const IncomingMessage> incoming) = 0;
  // Has everything arrived that is expected?
  [[nodiscard]] virtual bool arrived() = 0;
  // The message from the i-th entry of `incoming`; valid from arrived() to finish().
  [[nodiscard]] virtual std::span<const std::byte> message(std::size_t i) = 0;
  // Says that the messages have been read.
  virtual void finish() = 0;
  // Have all readers finished with what this device offered? Then the exchange is over.
  [[nodiscard]] virtual bool over() = 0;

  // Waits until something may have changed since `seen` was returned by `events`; returns at once
  // if it already has.
  [[nodiscard]] virtual std::uint32_t events() = 0;
  virtual void wait(std::uint32_t seen) = 0;

  // Ends all waiting on all devices for good: some device has failed. arrived() and over() stay as
  // they are.
  virtual void abort() = 0;
  [[nodiscard]] virtual bool aborted() = 0;
};

// Endpoints for devices 0..count-1 that live in one process and hand over pointers: a reader reads
// the sender's memory. Who waits keeps its core awake for so long.
[[nodiscard]] std::vector<std::unique_ptr<Communicator>> make_thread_communicators(
    std::size_t count, Patience::Clock::duration awake = Patience::kUsual);

}  // namespace weir
