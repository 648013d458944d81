#pragma once
// Memory for activations of one device. Buffers that are given back are used again, so that steps
// of equal shape allocate nothing. Used by one thread.

#include <cstdint>
#include <utility>
#include <vector>

#include "kernel/scratch.h"

namespace weir {

class BufferPool;

// Floats from a pool; goes back to it when destroyed. 64-byte aligned, contents undefined.
class PooledBuffer {
 public:
  PooledBuffer() = default;
  PooledBuffer(PooledBuffer&& other) noexcept
      : pool_(std::exchange(other.pool_, nullptr)), block_(std::move(other.block_)) {}
  PooledBuffer& operator=(PooledBuffer&& other) noexcept {
    std::swap(pool_, other.pool_);
    std::swap(block_, other.block_);
    return *this;
  }
  PooledBuffer(const PooledBuffer&) = delete;
  PooledBuffer& operator=(const PooledBuffer&) = delete;
  ~PooledBuffer();

  [[nodiscard]] float* data() const { return reinterpret_cast<float*>(block_.data()); }

 private:
  friend class BufferPool;
  PooledBuffer(BufferPool& pool, kernel::Block block) : pool_(&pool), block_(std::move(block)) {}

  BufferPool* pool_ = nullptr;
  kernel::Block block_;
};

class BufferPool {
 public:
  BufferPool() = default;
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;
  ~BufferPool() = default;

  // Throws std::bad_alloc when memory runs out.
  [[nodiscard]] PooledBuffer take(std::int64_t floats);
  [[nodiscard]] std::int64_t bytes() const { return bytes_; }

 private:
  friend class PooledBuffer;
  void give_back(kernel::Block block);

  std::vector<kernel::Block> free_;  // Ascending by bytes; of equal ones, those given back last
                                     // come first, for they are in the caches.
  std::int64_t bytes_ = 0;           // Handed out and free.
};

}  // namespace weir
