#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <functional>
#include <limits>

#include "base/check.h"
#include "kernel/kernel.h"
#include "kernel/panel.h"

namespace weir::kernel {
namespace {

// Bits of kImmoderate without the sign; all larger ones, infinity and NaN have larger bits. f16 has
// no such finite value.
std::uint32_t immoderate_bits(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return std::bit_cast<std::uint32_t>(kImmoderate);
    case DType::bf16:
      return std::bit_cast<std::uint32_t>(kImmoderate) >> 16U;
    case DType::f16:
      break;
  }
  return 0x7C00;  // Infinity.
}

// Where a part has in feature k of out feature `row`, in values.
std::int64_t place_of_value(std::int64_t k, std::int64_t row) { return k * kPanel + row; }
std::int64_t place_in_pair(std::int64_t k, std::int64_t row) {
  const std::int64_t pair = k / kStepDepth * 2 * kHalfStepPairs +
                            row / kPairsInRow * kHalfStepPairs + k % kPairDistance * kPairsInRow +
                            row % kPairsInRow;
  return 2 * pair + k % kStepDepth / kPairDistance;
}

// Transposes `depth` in features of one panel, from in feature k on. Going by blocks of columns
// keeps the 32 cache lines that are read in L1. Returns the largest bits without sign.
template <auto place, class Bits>
Bits pack_part(const WeightView& weights, std::int64_t panel, std::int64_t k, std::int64_t depth,
               Bits* to) {
  constexpr auto kMagnitude = static_cast<Bits>(std::numeric_limits<Bits>::max() >> 1U);
  Bits largest = 0;
  constexpr std::int64_t kBytes = sizeof(Bits);
  constexpr std::int64_t kColumns = 64 / kBytes;
  const std::int64_t first = panel * kPanel;
  const std::int64_t rows = std::min(kPanel, weights.out_features - first);
  const auto* const from =
      static_cast<const std::byte*>(weights.data) + (first * weights.row_stride + k) * kBytes;
  for (std::int64_t begin = 0; begin < depth; begin += kColumns) {
    const std::int64_t columns = std::min(kColumns, depth - begin);
    Bits block[kPanel][kColumns] = {};
    for (std::int64_t row = 0; row < rows; ++row) {
      std::memcpy(block[row], from + (row * weights.row_stride + begin) * kBytes,
                  static_cast<std::size_t>(columns * kBytes));
    }
    for (std::int64_t column = 0; column < columns; ++column) {
      for (std::int64_t row = 0; row < kPanel; ++row) {
        const Bits bits = block[row][column];
        to[place(begin + column, row)] = bits;
        largest = std::max(largest, static_cast<Bits>(bits & kMagnitude));
      }
    }
  }
  return largest;
}

// Whether all weights packed are moderate.
template <class Bits, auto place>
bool pack_panels(const WeightView& weights, const PackedWeights::Impl& packed, std::int64_t begin,
                 std::int64_t end) {
  Bits largest = 0;
  for (std::int64_t panel = begin; panel < end; ++panel) {
    for (std::int64_t k = 0; k < weights.in_features; k += kDepth) {
      std::byte* const to = packed.part(panel, k);
      const std::int64_t depth = packed.depth(k);
      if (packed.stored_depth(depth) > depth)
        std::memset(to, 0, static_cast<std::size_t>(packed.part_bytes(k)));
      largest = std::max(largest,
                         pack_part<place>(weights, panel, k, depth, reinterpret_cast<Bits*>(to)));
    }
  }
  return largest < immoderate_bits(weights.dtype);
}

// Of one core; 0 where it is not known.
std::int64_t l2_bytes() {
  static const auto bytes = static_cast<std::int64_t>(sysconf(_SC_LEVEL2_CACHE_SIZE));
  return bytes;
}

}  // namespace

bool PackedWeights::Impl::near(std::int64_t workers) const {
  return arena != nullptr && static_cast<std::int64_t>(arena->taken()) <= l2_bytes() * workers;
}

PackedWeights::PackedWeights(Team& team, WeightView weights, Arena* arena)
    : impl_(std::make_unique<Impl>()) {
  impl_->dtype = weights.dtype;
  impl_->out_features = weights.out_features;
  impl_->in_features = weights.in_features;
  impl_->group_panels = panels_in_group(size_in_bytes(weights.dtype));
  impl_->arena = arena;
  const auto bytes = static_cast<std::size_t>(impl_->bytes());
  if (arena == nullptr) impl_->own = Block(bytes);
  impl_->data = arena == nullptr ? impl_->own.data() : arena->take(bytes);
  // Every worker first touches the pages of the panels that it multiplies in `linear`.
  std::atomic<bool> moderate{true};
  const auto part = [&](std::int64_t begin, std::int64_t end) {
    const auto pack = [&] {
      switch (weights.dtype) {
        case DType::f32:
          return pack_panels<std::uint32_t, place_of_value>;
        case DType::bf16:
          return pack_panels<std::uint16_t, place_in_pair>;
        case DType::f16:
          return pack_panels<std::uint16_t, place_of_value>;
      }
      CHECK(false, "unknown dtype");
    }();
    if (!pack(weights, *impl_, begin, end)) moderate = false;
  };
  team.parallel_for(impl_->panels(), 1, std::ref(part));
  impl_->moderate = moderate;
}

PackedWeights::~PackedWeights() = default;
PackedWeights::PackedWeights(PackedWeights&&) noexcept = default;
PackedWeights& PackedWeights::operator=(PackedWeights&&) noexcept = default;

std::int64_t PackedWeights::out_features() const { return impl_->out_features; }
std::int64_t PackedWeights::in_features() const { return impl_->in_features; }
std::int64_t PackedWeights::bytes() const { return impl_->bytes(); }

}  // namespace weir::kernel
