#include "exec/kv_store.h"

#include <algorithm>

#include "base/check.h"

namespace weir {
namespace {

std::size_t block_of(std::int64_t position) {
  return static_cast<std::size_t>(position / kKvBlockSize);
}

}  // namespace

std::int64_t KvStrip::block_bytes() const {
  return shape_.heads.size() * kKvBlockSize * shape_.dims.size() * size_in_bytes(shape_.dtype);
}

void KvStrip::reserve_block(Blocks& blocks, std::size_t index) {
  if (blocks.owned.size() <= index) {
    blocks.owned.resize(index + 1);
    blocks.pointers.resize(index + 1, nullptr);
    blocks.const_pointers.resize(index + 1, nullptr);
  }
  if (blocks.owned[index] != nullptr) return;
  blocks.owned[index] =
      std::make_unique_for_overwrite<std::byte[]>(static_cast<std::size_t>(block_bytes()));
  blocks.pointers[index] = blocks.owned[index].get();
  blocks.const_pointers[index] = blocks.owned[index].get();
  bytes_ += block_bytes();
}

void KvStrip::reserve(Interval positions) {
  if (positions.empty()) return;
  for (std::size_t block = block_of(positions.begin); block <= block_of(positions.end - 1);
       ++block) {
    reserve_block(keys_, block);
    reserve_block(values_, block);
  }
  // Joins the new range with those that it touches.
  std::vector<Interval> joined;
  for (const Interval& range : held_) {
    if (range.end < positions.begin || positions.end < range.begin) {
      joined.push_back(range);
    } else {
      positions = {.begin = std::min(positions.begin, range.begin),
                   .end = std::max(positions.end, range.end)};
    }
  }
  joined.insert(std::ranges::lower_bound(joined, positions.begin, {}, &Interval::begin), positions);
  held_ = std::move(joined);
}

bool KvStrip::holds(Interval positions) const {
  return positions.empty() ||
         std::ranges::any_of(held_, [&](Interval range) { return range.contains(positions); });
}

kernel::KvBlocks KvStrip::blocks_of(const Blocks& blocks, Interval positions) const {
  kernel::KvBlocks view = {.blocks = {},
                           .dtype = shape_.dtype,
                           .block_size = kKvBlockSize,
                           .first_position = 0,
                           .head_stride = kKvBlockSize * shape_.dims.size(),
                           .position_stride = shape_.dims.size()};
  if (positions.empty()) return view;
  CHECK(holds(positions), "K and V are read that have not been written");
  const std::size_t first = block_of(positions.begin);
  view.first_position = static_cast<std::int64_t>(first) * kKvBlockSize;
  view.blocks =
      std::span(blocks.const_pointers).subspan(first, block_of(positions.end - 1) - first + 1);
  return view;
}

kernel::MutableKvBlocks KvStrip::mutable_blocks_of(Blocks& blocks, Interval positions) {
  const kernel::KvBlocks view = blocks_of(blocks, positions);
  kernel::MutableKvBlocks result = {.blocks = {},
                                    .dtype = view.dtype,
                                    .block_size = view.block_size,
                                    .first_position = view.first_position,
                                    .head_stride = view.head_stride,
                                    .position_stride = view.position_stride};
  if (!positions.empty()) {
    result.blocks =
        std::span(blocks.pointers).subspan(block_of(positions.begin), view.blocks.size());
  }
  return result;
}

KvStrip& KvStore::strip(SequenceId sequence, std::int32_t layer, KvStrip::Shape shape) {
  auto& strips = strips_[{sequence, layer}];
  for (const auto& strip : strips) {
    if (strip->shape().heads == shape.heads && strip->shape().dims == shape.dims) {
      CHECK(strip->shape().dtype == shape.dtype, "a sequence's KV cache keeps its dtype");
      return *strip;
    }
  }
  return *strips.emplace_back(std::make_unique<KvStrip>(shape));
}

const KvStrip* KvStore::find(SequenceId sequence, std::int32_t layer, Interval heads, Interval dims,
                             Interval positions) const {
  const auto strips = strips_.find({sequence, layer});
  if (strips == strips_.end()) return nullptr;
  for (const auto& strip : strips->second) {
    const KvStrip::Shape& shape = strip->shape();
    if (shape.heads.contains(heads) && shape.dims.contains(dims) && strip->holds(positions))
      return strip.get();
  }
  return nullptr;
}

void KvStore::release(SequenceId sequence) {
  const auto first = strips_.lower_bound({sequence, std::numeric_limits<std::int32_t>::min()});
  const auto last = strips_.upper_bound({sequence, std::numeric_limits<std::int32_t>::max()});
  strips_.erase(first, last);
}

std::int64_t KvStore::bytes() const {
  std::int64_t bytes = 0;
  for (const auto& [key, strips] : strips_) {
    for (const auto& strip : strips) bytes += strip->bytes();
  }
  return bytes;
}

}  // namespace weir
