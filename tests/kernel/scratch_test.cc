#include "kernel/scratch.h"

#include <cstdint>
#include <cstring>
#include <map>
#include <vector>

#include <gtest/gtest.h>

namespace weir::kernel {
namespace {

constexpr std::size_t kMib = std::size_t{1} << 20U;

TEST(Arena, SmallArraysFollowEachOther) {
  Arena arena;
  const std::byte* const first = arena.take(100);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(first) % 64, 0);
  EXPECT_EQ(arena.take(64), first + 128);
  EXPECT_EQ(arena.take(1), first + 192);
}

TEST(Arena, ArraysOfAllSizesStayWhereTheyAreAndDoNotOverlap) {
  Arena arena;
  std::map<std::byte*, std::size_t> taken;
  const std::vector<std::size_t> sizes{1, kMib, 3 * kMib, 64, 2 * kMib, 0, 5 * kMib, 100'000, kMib};
  int value = 0;
  for (const std::size_t size : sizes) {
    std::byte* const memory = arena.take(size);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(memory) % 64, 0);
    std::memset(memory, ++value, size);
    if (size > 0) taken[memory] = size;
  }
  const std::byte* end = nullptr;
  for (const auto& [memory, size] : taken) {
    EXPECT_GE(memory, end);
    end = memory + size;
    EXPECT_EQ(memory[0], memory[size - 1]);
  }
  EXPECT_EQ(taken.size(), sizes.size() - 1);
}

}  // namespace
}  // namespace weir::kernel
