#pragma once
// How plan files spell a bound. Unlike to_string, which is for people, every bound has a spelling
// of its own, so that reading gives back what was written:
//
//   4096, -3        the number                    "end", "end-1"     the end of the axis
//   "3/8", "3/8+1"  after block 3 of 8 blocks     (any bound that is not one of the above)

#include <optional>
#include <string>
#include <string_view>

#include "layout/box.h"

namespace weir {

// The text form: for every bound but plain numbers, which are written as such.
[[nodiscard]] std::string text_of(Bound bound);
// Reads the text form; nullopt where it is no bound, its index is not in 0..parts, or a number does
// not fit.
[[nodiscard]] std::optional<Bound> parse_bound(std::string_view text);

}  // namespace weir
