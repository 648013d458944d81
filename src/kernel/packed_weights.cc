#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <functional>
#include <limits>

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

// Transposes `depth` in features of one panel, from in feature k on. Going by blocks of columns
// keeps the 32 cache lines that are read in L1. Returns the largest bits without sign.
template <class Bits>
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
        to[(begin + column) * kPanel + row] = bits;
        largest = std::max(largest, static_cast<Bits>(bits & kMagnitude));
      }
    }
  }
  return largest;
}

// Whether all weights packed are moderate.
template <class Bits>
bool pack_panels(const WeightView& weights, const PackedWeights::Impl& packed, std::int64_t begin,
                 std::int64_t end) {
  Bits largest = 0;
  for (std::int64_t panel = begin; panel < end; ++panel) {
    for (std::int64_t k = 0; k < weights.in_features; k += kDepth) {
      auto* const to = reinterpret_cast<Bits*>(packed.part(panel, k));
      largest = std::max(largest, pack_part(weights, panel, k, packed.depth(k), to));
    }
  }
  return largest < immoderate_bits(weights.dtype);
}

}  // namespace

PackedWeights::PackedWeights(Team& team, WeightView weights, Arena* arena)
    : impl_(std::make_unique<Impl>()) {
  impl_->dtype = weights.dtype;
  impl_->out_features = weights.out_features;
  impl_->in_features = weights.in_features;
  const auto bytes = static_cast<std::size_t>(impl_->bytes());
  if (arena == nullptr) impl_->own = Block(bytes);
  impl_->data = arena == nullptr ? impl_->own.data() : arena->take(bytes);
  // Every worker first touches the pages of the panels that it multiplies in `linear`.
  std::atomic<bool> moderate{true};
  const auto part = [&](std::int64_t begin, std::int64_t end) {
    const bool these = size_in_bytes(weights.dtype) == 2
                           ? pack_panels<std::uint16_t>(weights, *impl_, begin, end)
                           : pack_panels<std::uint32_t>(weights, *impl_, begin, end);
    if (!these) moderate = false;
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
