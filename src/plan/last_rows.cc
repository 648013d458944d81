#include "plan/last_rows.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

namespace weir {
namespace {

bool cuts_tokens(const Layout& layout) {
  return std::ranges::any_of(layout.pieces,
                             [](const Piece& piece) { return piece.box.token != Range::all(); });
}

bool attends_to_nothing(const Piece& tile) {
  const Range& keys = tile.over.token;
  return keys.begin.is_constant() && keys.begin == keys.end;
}

// Parts of a tensor, whoever holds them.
class Parts {
 public:
  // False where it is known.
  bool add(const Piece& piece) {
    const Piece part = {.device = DeviceId{0}, .box = piece.box, .over = piece.over};
    const std::size_t hash = hash_of({.kind = LayoutKind::whole, .pieces = {part}});
    const auto [begin, end] = known_.equal_range(hash);
    if (std::any_of(begin, end, [&](const auto& known) { return known.second == part; }))
      return false;
    known_.emplace(hash, part);
    return true;
  }

 private:
  std::unordered_multimap<std::size_t, Piece> known_;
};

// Keeps the pieces that hold the last row, or a part of it that is not among `parts`.
void take_last_row(Layout& layout, Parts& parts) {
  for (Piece& piece : layout.pieces) piece.box.token = Range::all();
  std::erase_if(layout.pieces, [&](const Piece& piece) { return !parts.add(piece); });
}

void take_last_row(Layout& layout) {
  Parts parts;
  if (cuts_tokens(layout)) take_last_row(layout, parts);
}

void take_last_row(std::vector<AttentionRound>& rounds) {
  for (AttentionRound& round : rounds) {
    take_last_row(round.scores);
    take_last_row(round.scores_complete);
  }
  const bool cut = std::ranges::any_of(
      rounds, [](const AttentionRound& round) { return cuts_tokens(round.attention); });
  if (!cut) return;
  Parts parts;  // What earlier rounds have attended to.
  for (AttentionRound& round : rounds) {
    if (rounds.size() > 1) std::erase_if(round.attention.pieces, attends_to_nothing);
    take_last_row(round.attention, parts);
  }
  std::erase_if(rounds, [](const AttentionRound& round) { return round.attention.pieces.empty(); });
}

// Whole rows wherever a part of them is.
Layout rows_of(const Layout& parts) {
  Layout rows;
  for (const Piece& part : parts.pieces) {
    const Piece row = {.device = part.device, .box = {.request = part.box.request}, .over = {}};
    if (std::ranges::find(rows.pieces, row) == rows.pieces.end()) rows.pieces.push_back(row);
  }
  return rows;
}

}  // namespace

LayerLayouts last_rows_of(const LayerLayouts& layer) {
  LayerLayouts last = layer;
  take_last_row(last.q);
  take_last_row(last.rounds);
  take_last_row(last.attention);
  for (Layout& station : last.attention_via) take_last_row(station);
  take_last_row(last.attention_out);
  take_last_row(last.ffn_hidden);
  if (cuts_tokens(last.residual)) last.residual = rows_of(last.ffn_hidden);
  return last;
}

}  // namespace weir
