#pragma once
// The KV cache of one device: what it holds stays where it is from step to step. Kept in blocks of
// positions per sequence, layer and range of KV heads, so that a device may hold any range of
// positions and grows without moving anything. Used by one thread at a time.

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <tuple>
#include <vector>

#include "base/dtype.h"
#include "base/ids.h"
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
  };
  explicit KvStrip(Shape shape) : shape_(shape) {}

  [[nodiscard]] const Shape& shape() const { return shape_; }
  [[nodiscard]] std::int64_t bytes() const { return bytes_; }

  // Room for these positions; throws std::bad_alloc when memory runs out. Marks them as held.
  void reserve(Interval positions);
  // Have all these positions been reserved (and so written)?
  [[nodiscard]] bool holds(Interval positions) const;

  // Blocks that contain `positions`, which must be held.
  [[nodiscard]] kernel::KvBlocks keys(Interval positions) const {
    return blocks_of(keys_, positions);
  }
  [[nodiscard]] kernel::KvBlocks values(Interval positions) const {
    return blocks_of(values_, positions);
  }
  [[nodiscard]] kernel::MutableKvBlocks mutable_keys(Interval positions) {
    return mutable_blocks_of(keys_, positions);
  }
  [[nodiscard]] kernel::MutableKvBlocks mutable_values(Interval positions) {
    return mutable_blocks_of(values_, positions);
  }

 private:
  struct Blocks {
    std::vector<std::unique_ptr<std::byte[]>>
        owned;  // By position / kKvBlockSize; null where nothing is held.
    std::vector<void*> pointers;
    std::vector<const void*> const_pointers;
  };

  [[nodiscard]] std::int64_t block_bytes() const;
  void reserve_block(Blocks& blocks, std::size_t index);
  [[nodiscard]] kernel::KvBlocks blocks_of(const Blocks& blocks, Interval positions) const;
  [[nodiscard]] kernel::MutableKvBlocks mutable_blocks_of(Blocks& blocks, Interval positions);

  Shape shape_;
  Blocks keys_;
  Blocks values_;
  std::vector<Interval> held_;  // Disjoint, ascending.
  std::int64_t bytes_ = 0;
};

class KvStore {
 public:
  // The strip of exactly these heads and dims, made when it is not there.
  [[nodiscard]] KvStrip& strip(SequenceId sequence, std::int32_t layer, KvStrip::Shape shape);
  // A strip that holds the heads, all of `dims` and the positions; null when there is none.
  [[nodiscard]] const KvStrip* find(SequenceId sequence, std::int32_t layer, Interval heads,
                                    Interval dims, Interval positions) const;
  void release(SequenceId sequence);
  [[nodiscard]] std::int64_t bytes() const;

 private:
  std::map<std::pair<SequenceId, std::int32_t>, std::vector<std::unique_ptr<KvStrip>>> strips_;
};

}  // namespace weir
