#include "exec/region.h"

#include <algorithm>
#include <cstring>

namespace weir {
namespace {

// Whether the heads of a row lie side by side, so that they can be taken at once.
bool heads_are_together(const Region& region) {
  return region.head_stride == region.dims || region.heads <= 1;
}

// `count` heads from `head` on, which lie side by side.
kernel::Matrix heads_of(const Region& region, std::int64_t head, std::int64_t count) {
  return {.data = region.data + head * region.head_stride,
          .rows = region.rows,
          .cols = count * region.dims,
          .row_stride = region.row_stride};
}

kernel::ConstMatrix read_only(const kernel::Matrix& matrix) {
  return {.data = matrix.data,
          .rows = matrix.rows,
          .cols = matrix.cols,
          .row_stride = matrix.row_stride};
}

// body(first head, heads) for all heads at once if they lie side by side, else one by one.
template <class Body>
void each_together(std::int64_t heads, bool together, const Body& body) {
  const std::int64_t at_once = together ? heads : 1;
  for (std::int64_t head = 0; head < heads; head += at_once) body(head, at_once);
}

}  // namespace

Region dense(float* data, const ResolvedBox& box, bool with_lse) {
  Region region = {.data = data,
                   .rows = box.token.size(),
                   .heads = box.head.size(),
                   .dims = box.dim.size(),
                   .row_stride = box.head.size() * box.dim.size(),
                   .head_stride = box.dim.size()};
  if (with_lse) {
    region.lse = data + box.elements();
    region.lse_row_stride = region.heads;
  }
  return region;
}

// NOLINTNEXTLINE(readability-non-const-parameter): the region is written to.
Region region_of(const BoundBuffer& buffer, float* data, float* lse, const ResolvedBox& box,
                 std::int64_t first_token) {
  const std::int64_t row = buffer.row_of(box.request, box.token.begin - first_token);
  const std::int64_t head = box.head.begin - buffer.head.begin;
  Region region = {.data = data + row * buffer.width() + head * buffer.dim.size() +
                           (box.dim.begin - buffer.dim.begin),
                   .rows = box.token.size(),
                   .heads = box.head.size(),
                   .dims = box.dim.size(),
                   .row_stride = buffer.width(),
                   .head_stride = buffer.dim.size()};
  if (lse != nullptr) {
    region.lse = lse + row * buffer.head.size() + head;
    region.lse_row_stride = buffer.head.size();
  }
  return region;
}

void copy_region(Team& team, const Region& target, const Region& source) {
  each_together(target.heads, heads_are_together(target) && heads_are_together(source),
                [&](std::int64_t head, std::int64_t count) {
                  kernel::copy(team, read_only(heads_of(source, head, count)),
                               heads_of(target, head, count));
                });
  if (target.lse == nullptr) return;
  for (std::int64_t row = 0; row < target.rows; ++row) {
    std::memcpy(target.lse + row * target.lse_row_stride, source.lse + row * source.lse_row_stride,
                static_cast<std::size_t>(target.heads) * sizeof(float));
  }
}

void add_region(Team& team, const Region& target, const Region& source) {
  each_together(target.heads, heads_are_together(target) && heads_are_together(source),
                [&](std::int64_t head, std::int64_t count) {
                  kernel::add(team, read_only(heads_of(source, head, count)),
                              heads_of(target, head, count));
                });
}

void sum_regions(Team& team, const Region& target, std::span<const Region> terms,
                 std::vector<kernel::ConstMatrix>& views) {
  each_together(target.heads,
                heads_are_together(target) && std::ranges::all_of(terms, heads_are_together),
                [&](std::int64_t head, std::int64_t count) {
                  views.clear();
                  for (const Region& term : terms)
                    views.push_back(read_only(heads_of(term, head, count)));
                  kernel::sum(team, views, heads_of(target, head, count));
                });
}

void merge_region(Team& team, const Region& target, const Region& source) {
  each_together(target.heads, heads_are_together(target) && heads_are_together(source),
                [&](std::int64_t head, std::int64_t count) {
                  kernel::merge_partial(
                      team, {.rows = target.rows, .num_heads = count, .head_dim = target.dims},
                      {.out = target.data + head * target.head_stride,
                       .row_stride = target.row_stride,
                       .lse = target.lse + head,
                       .lse_row_stride = target.lse_row_stride},
                      {.out = source.data + head * source.head_stride,
                       .row_stride = source.row_stride,
                       .lse = source.lse + head,
                       .lse_row_stride = source.lse_row_stride});
                });
}

}  // namespace weir
