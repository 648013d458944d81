#pragma once
// The KV cache of one device: what it holds stays where it is from step to step. Kept in blocks of
// positions per sequence, layer and range of KV heads, so that a device may hold any range of
// positions and grows without moving anything. Used by one thread at a time.

#include <compare>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "base/dtype.h"
#include "base/ids.h"
#include "exec/kv_memory.h"
#include "kernel/kernel.h"
#include "layout/box.h"

namespace weir {

enum class SequenceId : std::uint64_t;

// Positions per block: long enough to stream, short enough not to waste memory on short sequences.
inline constexpr std::int64_t kKvBlockSize = 128;

// Heads and dimensions of one sequence in one layer on one device. Within a block:
// [head][position][dim].
class KvStrip {
 public:
  struct Shape {
    Interval heads;
    Interval dims;
    DType dtype = DType::f32;
    bool operator==(const Shape&) const = default;
  };
  // `memory` must outlive the strip.
  KvStrip(Shape shape, KvMemory& memory) : shape_(shape), memory_(&memory) {}
  KvStrip(const KvStrip&) = delete;
  KvStrip& operator=(const KvStrip&) = delete;
  ~KvStrip();

  [[nodiscard]] const Shape& shape() const { return shape_; }
  [[nodiscard]] std::int64_t bytes() const { return bytes_; }

  // Room for these positions; throws std::bad_alloc when memory runs out. Marks them as held.
  void reserve(Interval positions);
  // Have all these positions been reserved (and so written)?
  [[nodiscard]] bool holds(Interval positions) const;

  // Blocks that contain `positions`, which must be held.
  [[nodiscard]] kernel::KvBlocks blocks(Interval positions) const;
  [[nodiscard]] kernel::MutableKvBlocks mutable_blocks(Interval positions);

 private:
  [[nodiscard]] std::int64_t block_bytes() const;
  void reserve_block(std::size_t index);

  Shape shape_;
  KvMemory* memory_;
  // By position / kKvBlockSize; null where nothing is held.
  std::vector<void*> pointers_;
  std::vector<const void*> const_pointers_;
  std::vector<Interval> held_;  // Disjoint, ascending.
  std::int64_t bytes_ = 0;
};

enum class KvTensor : std::uint8_t { keys, values };

// Which tensor of which sequence and layer.
struct KvKey {
  SequenceId sequence{};
  std::int32_t layer = 0;
  KvTensor tensor = KvTensor::keys;

  auto operator<=>(const KvKey&) const = default;
};

class KvStore {
 public:
  // The strip of exactly these heads and dims, made when it is not there.
  [[nodiscard]] KvStrip& strip(KvKey key, const KvStrip::Shape& shape);
  // A strip that holds the heads, the dims and the positions; null when there is none.
  struct Wanted {
    Interval heads;
    Interval dims;
    Interval positions;
  };
  [[nodiscard]] const KvStrip* find(KvKey key, const Wanted& wanted) const;
  // Drops strips of other heads or dims than these: what a change of layout has left behind.
  void keep_only(KvKey key, std::span<const KvStrip::Shape> shapes);
  void release(SequenceId sequence);
  [[nodiscard]] std::int64_t bytes() const;

 private:
  KvMemory memory_;  // Outlives the strips.
  std::map<KvKey, std::vector<std::unique_ptr<KvStrip>>> strips_;
};

}  // namespace weir
