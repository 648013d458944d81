#pragma once
// Memory for the KV cache of one device: blocks of a few sizes, cut from slabs in huge pages, so
// that streaming over a cache does not wait for page tables. What is given back is used again, by
// blocks of any size once its whole slab is free; a run in the steady state takes nothing from the
// system. Used by one thread.

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "kernel/scratch.h"

namespace weir {

class KvMemory {
 public:
  KvMemory() = default;
  KvMemory(const KvMemory&) = delete;
  KvMemory& operator=(const KvMemory&) = delete;
  ~KvMemory() = default;

  // Aligned to a cache line, contents undefined. Throws std::bad_alloc when memory runs out.
  [[nodiscard]] std::byte* take(std::size_t bytes);
  // What `take` has returned for as many bytes.
  void give_back(std::byte* block, std::size_t bytes);

  // Taken from the system, in use or not.
  [[nodiscard]] std::int64_t bytes() const { return bytes_; }

 private:
  struct Slab {
    kernel::Block memory;
    std::size_t block_bytes = 0;
    std::vector<std::byte*> free;
    std::size_t in_use = 0;
  };
  Slab& slab_with_room(std::size_t block_bytes);
  void cut(Slab& slab, std::size_t block_bytes);

  std::map<const std::byte*, Slab> slabs_;                          // By their first byte.
  std::map<std::size_t, std::vector<const std::byte*>> with_room_;  // By size of block.
  std::int64_t bytes_ = 0;
};

}  // namespace weir
