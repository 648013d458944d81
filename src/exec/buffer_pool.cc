#include "exec/buffer_pool.h"

#include <algorithm>
#include <new>

namespace weir {
namespace {

constexpr std::int64_t kAlignment = 64;  // A cache line, and the widest vector.
constexpr std::int64_t kGrain =
    1024;  // Sizes are rounded up to this many floats, so that near misses are reused.

}  // namespace

PooledBuffer::~PooledBuffer() {
  if (pool_ != nullptr) pool_->give_back(data_, capacity_);
}

PooledBuffer BufferPool::take(std::int64_t floats) {
  const std::int64_t wanted = std::max<std::int64_t>(1, (floats + kGrain - 1) / kGrain) * kGrain;
  // The smallest that fits, unless it would waste more than it holds.
  const auto found = free_.lower_bound(wanted);
  if (found != free_.end() && found->first <= 2 * wanted) {
    const std::int64_t capacity = found->first;
    float* const data = found->second.release();
    free_.erase(found);
    return {*this, data, capacity};
  }
  const std::int64_t bytes = wanted * static_cast<std::int64_t>(sizeof(float));
  auto* data = static_cast<float*>(std::aligned_alloc(kAlignment, static_cast<std::size_t>(bytes)));
  if (data == nullptr) throw std::bad_alloc();
  bytes_ += bytes;
  return {*this, data, wanted};
}

void BufferPool::give_back(float* data, std::int64_t capacity) {
  free_.emplace(capacity, std::unique_ptr<float, Free>(data));
}

}  // namespace weir
