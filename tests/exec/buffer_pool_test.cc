#include "exec/buffer_pool.h"

#include <cstdint>
#include <utility>

#include <gtest/gtest.h>

namespace weir {
namespace {

TEST(BufferPool, GivesAlignedMemoryForAnySize) {
  BufferPool pool;
  for (const std::int64_t floats : {0, 1, 1023, 1024, 1025}) {
    const PooledBuffer buffer = pool.take(floats);
    ASSERT_NE(buffer.data(), nullptr);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer.data()) % 64, 0U);
    for (std::int64_t i = 0; i < floats; ++i) buffer.data()[i] = 1;
  }
}

TEST(BufferPool, UsesMemoryAgain) {
  BufferPool pool;
  const float* first = nullptr;
  {
    const PooledBuffer buffer = pool.take(5000);
    first = buffer.data();
  }
  const std::int64_t held = pool.bytes();
  const PooledBuffer again = pool.take(4900);
  EXPECT_EQ(again.data(), first);
  EXPECT_EQ(pool.bytes(), held);
}

TEST(BufferPool, NeverGivesTheSameMemoryTwice) {
  BufferPool pool;
  const PooledBuffer first = pool.take(100);
  const PooledBuffer second = pool.take(100);
  EXPECT_NE(first.data(), second.data());
}

TEST(BufferPool, DoesNotWasteALargeBufferOnASmallWish) {
  BufferPool pool;
  { const PooledBuffer large = pool.take(1 << 20); }
  const std::int64_t held = pool.bytes();
  const PooledBuffer small = pool.take(10);
  EXPECT_EQ(pool.bytes(), held + 4096);
}

TEST(BufferPool, TakesBackWhatWasMovedOnce) {
  BufferPool pool;
  {
    PooledBuffer first = pool.take(10);
    PooledBuffer second = pool.take(10);
    PooledBuffer third = std::move(first);
    third = std::move(second);
  }
  const PooledBuffer a = pool.take(10);
  const PooledBuffer b = pool.take(10);
  EXPECT_NE(a.data(), b.data());
  EXPECT_EQ(pool.bytes(), 2 * 4096);
}

}  // namespace
}  // namespace weir
