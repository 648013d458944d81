#include <algorithm>
#include <cstring>
#include <functional>

#include "kernel/kernel.h"
#include "kernel/panel.h"

namespace weir::kernel {
namespace {

// Transposes one panel. Blocks of columns keep the 32 lines being read in L1.
template <class Bits>
void pack_panel(const WeightView& weights, std::int64_t panel, Bits* to) {
  constexpr std::int64_t kColumns = 64 / static_cast<std::int64_t>(sizeof(Bits));
  const std::int64_t first = panel * kPanel;
  const std::int64_t rows = std::min(kPanel, weights.out_features - first);
  const auto* const from = static_cast<const std::byte*>(weights.data) +
                           first * weights.row_stride * static_cast<std::int64_t>(sizeof(Bits));
  for (std::int64_t begin = 0; begin < weights.in_features; begin += kColumns) {
    const std::int64_t columns = std::min(kColumns, weights.in_features - begin);
    Bits block[kPanel][kColumns] = {};
    for (std::int64_t row = 0; row < rows; ++row) {
      std::memcpy(
          block[row],
          from + (row * weights.row_stride + begin) * static_cast<std::int64_t>(sizeof(Bits)),
          static_cast<std::size_t>(columns) * sizeof(Bits));
    }
    for (std::int64_t column = 0; column < columns; ++column) {
      for (std::int64_t row = 0; row < kPanel; ++row) {
        to[(begin + column) * kPanel + row] = block[row][column];
      }
    }
  }
}

template <class Bits>
void pack_panels(const WeightView& weights, std::int64_t begin, std::int64_t end,
                 std::byte* block) {
  auto* const to = reinterpret_cast<Bits*>(block);
  for (std::int64_t panel = begin; panel < end; ++panel) {
    pack_panel(weights, panel, to + panel * weights.in_features * kPanel);
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
      pack_panels<std::uint16_t>(weights, begin, end, impl_->block.data());
    } else {
      pack_panels<std::uint32_t>(weights, begin, end, impl_->block.data());
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
