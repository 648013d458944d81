#include <algorithm>
#include <cstring>
#include <functional>

#include "kernel/kernel.h"
#include "kernel/panel.h"

namespace weir::kernel {
namespace {

// Transposes `depth` in features of one panel, from in feature k on. Going by blocks of columns
// keeps the 32 cache lines that are read in L1.
template <class Bits>
void pack_part(const WeightView& weights, std::int64_t panel, std::int64_t k, std::int64_t depth,
               Bits* to) {
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
        to[(begin + column) * kPanel + row] = block[row][column];
      }
    }
  }
}

template <class Bits>
void pack_panels(const WeightView& weights, const PackedWeights::Impl& packed, std::int64_t begin,
                 std::int64_t end) {
  for (std::int64_t panel = begin; panel < end; ++panel) {
    for (std::int64_t k = 0; k < weights.in_features; k += kDepth) {
      pack_part(weights, panel, k, packed.depth(k), reinterpret_cast<Bits*>(packed.part(panel, k)));
    }
  }
}

}  // namespace

PackedWeights::PackedWeights(Team& team, WeightView weights) : impl_(std::make_unique<Impl>()) {
  impl_->dtype = weights.dtype;
  impl_->out_features = weights.out_features;
  impl_->in_features = weights.in_features;
  const std::int64_t values = impl_->panels() * weights.in_features * kPanel;
  impl_->block = Block(static_cast<std::size_t>(values * size_in_bytes(weights.dtype)));
  // Every worker first touches the pages of the panels that it multiplies in `linear`.
  const auto part = [&](std::int64_t begin, std::int64_t end) {
    if (size_in_bytes(weights.dtype) == 2) {
      pack_panels<std::uint16_t>(weights, *impl_, begin, end);
    } else {
      pack_panels<std::uint32_t>(weights, *impl_, begin, end);
    }
  };
  team.parallel_for(impl_->panels(), 1, std::ref(part));
}

PackedWeights::~PackedWeights() = default;
PackedWeights::PackedWeights(PackedWeights&&) noexcept = default;
PackedWeights& PackedWeights::operator=(PackedWeights&&) noexcept = default;

std::int64_t PackedWeights::out_features() const { return impl_->out_features; }
std::int64_t PackedWeights::in_features() const { return impl_->in_features; }
std::int64_t PackedWeights::bytes() const {
  return static_cast<std::int64_t>(impl_->block.bytes());
}

}  // namespace weir::kernel
