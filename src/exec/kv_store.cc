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

KvStrip::~KvStrip() {
  for (void* block : pointers_) {
    if (block != nullptr)
      memory_->give_back(static_cast<std::byte*>(block), static_cast<std::size_t>(block_bytes()));
  }
}

void KvStrip::reserve_block(std::size_t index) {
  if (pointers_.size() <= index) {
    pointers_.resize(index + 1, nullptr);
    const_pointers_.resize(index + 1, nullptr);
  }
  if (pointers_[index] != nullptr) return;
  pointers_[index] = memory_->take(static_cast<std::size_t>(block_bytes()));
  const_pointers_[index] = pointers_[index];
  bytes_ += block_bytes();
}

void KvStrip::reserve(Interval positions) {
  if (positions.empty()) return;
  for (std::size_t block = block_of(positions.begin); block <= block_of(positions.end - 1);
       ++block) {
    reserve_block(block);
  }
  // Joins the new range with those that it touches.
  const auto first = std::ranges::lower_bound(held_, positions.begin, {}, &Interval::end);
  auto last = first;
  for (; last != held_.end() && last->begin <= positions.end; ++last) {
    positions = {.begin = std::min(positions.begin, last->begin),
                 .end = std::max(positions.end, last->end)};
  }
  if (first == last) {
    held_.insert(first, positions);
  } else {
    *first = positions;
    held_.erase(first + 1, last);
  }
}

bool KvStrip::holds(Interval positions) const {
  return positions.empty() ||
         std::ranges::any_of(held_, [&](Interval range) { return range.contains(positions); });
}

kernel::KvBlocks KvStrip::blocks(Interval positions) const {
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
  view.blocks = std::span(const_pointers_).subspan(first, block_of(positions.end - 1) - first + 1);
  return view;
}

kernel::MutableKvBlocks KvStrip::mutable_blocks(Interval positions) {
  const kernel::KvBlocks view = blocks(positions);
  kernel::MutableKvBlocks result = {.blocks = {},
                                    .dtype = view.dtype,
                                    .block_size = view.block_size,
                                    .first_position = view.first_position,
                                    .head_stride = view.head_stride,
                                    .position_stride = view.position_stride};
  if (!positions.empty()) {
    result.blocks = std::span(pointers_).subspan(block_of(positions.begin), view.blocks.size());
  }
  return result;
}

KvStrip& KvStore::strip(KvKey key, const KvStrip::Shape& shape) {
  auto& strips = strips_[key];
  for (const auto& strip : strips) {
    if (strip->shape() == shape) return *strip;
  }
  return *strips.emplace_back(std::make_unique<KvStrip>(shape, memory_));
}

const KvStrip* KvStore::find(KvKey key, const Wanted& wanted) const {
  const auto strips = strips_.find(key);
  if (strips == strips_.end()) return nullptr;
  for (const auto& strip : strips->second) {
    const KvStrip::Shape& shape = strip->shape();
    if (shape.heads.contains(wanted.heads) && shape.dims.contains(wanted.dims) &&
        strip->holds(wanted.positions)) {
      return strip.get();
    }
  }
  return nullptr;
}

void KvStore::keep_only(KvKey key, std::span<const KvStrip::Shape> shapes) {
  const auto strips = strips_.find(key);
  if (strips == strips_.end()) return;
  std::erase_if(strips->second, [&](const std::unique_ptr<KvStrip>& strip) {
    return std::ranges::find(shapes, strip->shape()) == shapes.end();
  });
}

void KvStore::release(SequenceId sequence) {
  std::erase_if(strips_, [&](const auto& entry) { return entry.first.sequence == sequence; });
}

std::int64_t KvStore::bytes() const {
  std::int64_t bytes = 0;
  for (const auto& [key, strips] : strips_) {
    for (const auto& strip : strips) bytes += strip->bytes();
  }
  return bytes;
}

}  // namespace weir
