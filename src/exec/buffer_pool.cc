#include "exec/buffer_pool.h"

#include <algorithm>

namespace weir {
namespace {

// Sizes are rounded up to this many floats, so that near misses are reused.
constexpr std::int64_t kGrain = 1024;

}  // namespace

PooledBuffer::~PooledBuffer() {
  if (pool_ != nullptr) pool_->give_back(std::move(block_));
}

PooledBuffer BufferPool::take(std::int64_t floats) {
  const std::int64_t rounded = std::max<std::int64_t>(1, (floats + kGrain - 1) / kGrain) * kGrain;
  const std::size_t wanted = static_cast<std::size_t>(rounded) * sizeof(float);
  // The smallest that fits, unless it would waste more than it holds.
  const auto found = std::ranges::lower_bound(free_, wanted, {}, &kernel::Block::bytes);
  if (found != free_.end() && found->bytes() <= 2 * wanted) {
    kernel::Block block = std::move(*found);
    free_.erase(found);
    return {*this, std::move(block)};
  }
  kernel::Block block(wanted);
  bytes_ += static_cast<std::int64_t>(block.bytes());
  return {*this, std::move(block)};
}

void BufferPool::give_back(kernel::Block block) {
  const auto place = std::ranges::lower_bound(free_, block.bytes(), {}, &kernel::Block::bytes);
  free_.insert(place, std::move(block));
}

}  // namespace weir
