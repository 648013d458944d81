#include "kernel/scratch.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <new>

#include "base/check.h"

namespace weir::kernel {
namespace {

constexpr std::size_t kCacheLine = 64;
constexpr std::size_t kHugePage = std::size_t{2} << 20U;

std::size_t round_up(std::size_t value, std::size_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

}  // namespace

Block::Block(std::size_t bytes) {
  if (bytes == 0) return;
  const std::size_t alignment = bytes >= kHugePage ? kHugePage : kCacheLine;
  bytes_ = round_up(bytes, kCacheLine);
  data_ = static_cast<std::byte*>(std::aligned_alloc(alignment, round_up(bytes, alignment)));
  if (data_ == nullptr) throw std::bad_alloc();
  // A hint: without huge pages everything works, with more TLB misses. Only whole pages are asked
  // for, so that the last one does not hold more memory than was wanted.
  if (alignment == kHugePage) (void)madvise(data_, bytes_ / kHugePage * kHugePage, MADV_HUGEPAGE);
}

// NOLINTNEXTLINE(cppcoreguidelines-no-malloc): this is the owner of what aligned_alloc returns.
Block::~Block() { std::free(data_); }

std::byte* Arena::take(std::size_t bytes) {
  // Blocks grow with what is held, so that little takes little.
  constexpr std::size_t kLargest = 64U << 20U;
  const std::size_t wanted = round_up(bytes, kCacheLine);
  if (blocks_.empty() || blocks_.back().bytes() - used_ < wanted) {
    blocks_.emplace_back(std::max(wanted, std::clamp(held_, kHugePage, kLargest)));
    held_ += blocks_.back().bytes();
    used_ = 0;
  }
  std::byte* const taken = blocks_.back().data() + used_;
  used_ += wanted;
  taken_ += wanted;
  return taken;
}

void Scratch::reserve(std::size_t bytes) {
  used_ = 0;
  if (bytes > block_.bytes()) {
    block_ = Block();  // Returns the old memory before asking for the new.
    block_ = Block(bytes);
  }
}

std::size_t Scratch::bytes_of_floats(std::int64_t count) {
  return round_up(static_cast<std::size_t>(count) * sizeof(float), kCacheLine);
}

float* Scratch::floats(std::int64_t count) {
  auto* const begin = reinterpret_cast<float*>(block_.data() + used_);
  used_ += bytes_of_floats(count);
  CHECK(used_ <= block_.bytes(), "more scratch cut than reserved");
  return begin;
}

Scratch& worker_scratch() {
  thread_local Scratch scratch;
  return scratch;
}

}  // namespace weir::kernel
