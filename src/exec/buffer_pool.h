#pragma once
// Memory for activations of one device. Buffers that are given back are used again, so that steps
// of equal shape allocate nothing. Used by one thread.

#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <utility>

namespace weir {

class BufferPool;

// Floats from a pool; goes back to it when destroyed. 64-byte aligned, contents undefined.
class PooledBuffer {
 public:
  PooledBuffer() = default;
  PooledBuffer(PooledBuffer&& other) noexcept
      : pool_(std::exchange(other.pool_, nullptr)),
        data_(std::exchange(other.data_, nullptr)),
        capacity_(std::exchange(other.capacity_, 0)) {}
  PooledBuffer& operator=(PooledBuffer&& other) noexcept {
    std::swap(pool_, other.pool_);
    std::swap(data_, other.data_);
    std::swap(capacity_, other.capacity_);
    return *this;
  }
  ~PooledBuffer();

  [[nodiscard]] float* data() const { return data_; }

 private:
  friend class BufferPool;
  PooledBuffer(BufferPool& pool, float* data, std::int64_t capacity)
      : pool_(&pool), data_(data), capacity_(capacity) {}

  BufferPool* pool_ = nullptr;
  float* data_ = nullptr;
  std::int64_t capacity_ = 0;
};

class BufferPool {
 public:
  BufferPool() = default;
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;

  // Throws std::bad_alloc when memory runs out.
  [[nodiscard]] PooledBuffer take(std::int64_t floats);
  [[nodiscard]] std::int64_t bytes() const { return bytes_; }

 private:
  friend class PooledBuffer;
  struct Free {
    void operator()(float* data) const { std::free(data); }
  };
  void give_back(float* data, std::int64_t capacity);

  std::multimap<std::int64_t, std::unique_ptr<float, Free>> free_;  // By capacity.
  std::int64_t bytes_ = 0;                                          // Handed out and free.
};

}  // namespace weir
