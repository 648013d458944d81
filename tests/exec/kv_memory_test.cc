#include "exec/kv_memory.h"

#include <cstring>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "base/random.h"

namespace weir {
namespace {

TEST(KvMemory, HandsOutBlocksThatDoNotOverlap) {
  KvMemory memory;
  constexpr std::size_t kBytes = 1000;
  std::vector<std::byte*> blocks;
  for (int i = 0; i < 100; ++i) {
    blocks.push_back(memory.take(kBytes));
    std::memset(blocks.back(), i, kBytes);
  }
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(blocks[i]) % 64, 0U);
    for (std::size_t b = 0; b < kBytes; ++b)
      ASSERT_EQ(blocks[i][b], static_cast<std::byte>(i)) << "block " << i;
  }
  for (std::byte* block : blocks) memory.give_back(block, kBytes);
}

TEST(KvMemory, TakesNothingFromTheSystemForWhatHasBeenGivenBack) {
  KvMemory memory;
  const auto run = [&](std::size_t bytes, int count) {
    std::vector<std::byte*> blocks;
    for (int i = 0; i < count; ++i) blocks.push_back(memory.take(bytes));
    for (std::byte* block : blocks) memory.give_back(block, bytes);
  };
  run(4096, 200);
  const std::int64_t held = memory.bytes();
  EXPECT_GE(held, 200 * 4096);
  EXPECT_LE(held, 2 * 200 * 4096);
  run(4096, 200);
  EXPECT_EQ(memory.bytes(), held);
  // Blocks of another size are cut from the same slabs.
  run(2048, 100);
  EXPECT_EQ(memory.bytes(), held);
}

TEST(KvMemory, KeepsBlocksApartInAnyOrderOfTakingAndGivingBack) {
  KvMemory memory;
  Random random(7);
  struct Taken {
    std::byte* data;
    std::size_t bytes;
    std::byte mark;
  };
  std::vector<Taken> taken;
  for (int i = 0; i < 3000; ++i) {
    if (taken.empty() || random.integer(0, 99) < 55) {
      const auto bytes = static_cast<std::size_t>(64 << random.integer(0, 5));
      const Taken one{memory.take(bytes), bytes, static_cast<std::byte>(i)};
      std::memset(one.data, i & 0xFF, bytes);
      taken.push_back(one);
    } else {
      const auto index =
          static_cast<std::size_t>(random.integer(0, static_cast<std::int64_t>(taken.size()) - 1));
      const Taken one = taken[index];
      for (std::size_t b = 0; b < one.bytes; ++b) ASSERT_EQ(one.data[b], one.mark);
      memory.give_back(one.data, one.bytes);
      taken.erase(taken.begin() + static_cast<std::ptrdiff_t>(index));
    }
  }
  for (const Taken& one : taken) memory.give_back(one.data, one.bytes);
}

}  // namespace
}  // namespace weir
