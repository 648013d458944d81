#include "exec/kv_memory.h"

#include <algorithm>
#include <iterator>

#include "base/check.h"

namespace weir {
namespace {

constexpr std::size_t kCacheLine = 64;
// Slabs grow with what is held, so that a short sequence does not take much.
constexpr std::size_t kLargestSlab = std::size_t{16} << 20;

std::size_t whole_lines(std::size_t bytes) {
  return (std::max<std::size_t>(bytes, 1) + kCacheLine - 1) / kCacheLine * kCacheLine;
}

}  // namespace

std::byte* KvMemory::take(std::size_t bytes) {
  const std::size_t block_bytes = whole_lines(bytes);
  Slab& slab = slab_with_room(block_bytes);
  std::byte* const block = slab.free.back();
  slab.free.pop_back();
  ++slab.in_use;
  if (slab.free.empty()) std::erase(with_room_[block_bytes], slab.memory.data());
  return block;
}

void KvMemory::give_back(std::byte* block, std::size_t bytes) {
  auto& [first, slab] = *std::prev(slabs_.upper_bound(block));
  CHECK(slab.block_bytes == whole_lines(bytes), "a block goes back as large as it was taken");
  if (slab.free.empty()) with_room_[slab.block_bytes].push_back(first);
  slab.free.push_back(block);
  --slab.in_use;
}

// Of blocks of this size, the slab that was touched last; else one that nothing is in; else a new
// one.
KvMemory::Slab& KvMemory::slab_with_room(std::size_t block_bytes) {
  std::vector<const std::byte*>& known = with_room_[block_bytes];
  if (!known.empty()) return slabs_.at(known.back());
  for (auto& [first, slab] : slabs_) {
    if (slab.in_use > 0 || slab.memory.bytes() < block_bytes) continue;
    std::erase(with_room_[slab.block_bytes], first);
    cut(slab, block_bytes);
    return slab;
  }
  const auto held = static_cast<std::size_t>(bytes_);
  const std::size_t blocks = std::max<std::size_t>(1, std::min(held, kLargestSlab) / block_bytes);
  kernel::Block memory(blocks * block_bytes);
  const std::byte* const first = memory.data();
  bytes_ += static_cast<std::int64_t>(memory.bytes());
  Slab& slab = slabs_[first];
  slab.memory = std::move(memory);
  cut(slab, block_bytes);
  return slab;
}

// The first block is handed out first.
void KvMemory::cut(Slab& slab, std::size_t block_bytes) {
  slab.block_bytes = block_bytes;
  slab.free.clear();
  for (std::size_t end = slab.memory.bytes() / block_bytes; end > 0; --end)
    slab.free.push_back(slab.memory.data() + (end - 1) * block_bytes);
  with_room_[block_bytes].push_back(slab.memory.data());
}

}  // namespace weir
