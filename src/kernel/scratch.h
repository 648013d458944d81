#pragma once
// Memory that kernels work in. Every thread keeps its own, grown to the largest request so far, so
// that calls in the steady state allocate nothing.

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace weir::kernel {

// A block of memory aligned to a cache line, and to a huge page (which it then asks for) where it
// is larger than one. Throws std::bad_alloc when memory runs out.
class Block {
 public:
  Block() = default;
  explicit Block(std::size_t bytes);
  ~Block();
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  Block(Block&& other) noexcept { swap(other); }
  Block& operator=(Block&& other) noexcept {
    swap(other);
    return *this;
  }

  [[nodiscard]] std::byte* data() const { return data_; }
  [[nodiscard]] std::size_t bytes() const { return bytes_; }

 private:
  void swap(Block& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
};

// Memory that stays: arrays that lie one after the other, in huge pages from a few MiB on. Where
// each had pages of its own, several that are to stay in a cache of the size of a few huge pages
// would meet in some of its sets by chance and leave others empty.
class Arena {
 public:
  // Aligned to a cache line, contents undefined; valid as long as the arena. Throws std::bad_alloc
  // when memory runs out.
  [[nodiscard]] std::byte* take(std::size_t bytes);
  [[nodiscard]] std::size_t taken() const { return taken_; }  // Bytes, by all.

 private:
  std::vector<Block> blocks_;
  std::size_t taken_ = 0;
  std::size_t used_ = 0;  // Of the last block.
  std::size_t held_ = 0;
};

// A block that several arrays are cut from. `reserve` invalidates what was cut before.
class Scratch {
 public:
  void reserve(std::size_t bytes);
  // `count` uninitialised values, aligned to a cache line; within what was reserved.
  float* floats(std::int64_t count);

  // Bytes that `floats(count)` uses up.
  static std::size_t bytes_of_floats(std::int64_t count);

 private:
  Block block_;
  std::size_t used_ = 0;
};

// The calling thread's scratch for its own part of a kernel.
Scratch& worker_scratch();

}  // namespace weir::kernel
