#pragma once
// A sweep as people and as programs read it.

#include <string>

#include <nlohmann/json_fwd.hpp>

#include "app/sweep.h"

namespace weir {

// One axis of lengths and one of the strategy make a grid per figure, and the best of each length;
// any other sweep is one table with a row per point. Below: what the figures mean, and why points
// are impossible or do not fit.
[[nodiscard]] std::string sweep_page(const Sweep& sweep);

// {axes, definitions, points, best}; a point that is impossible has `valid` false and a `reason`.
[[nodiscard]] nlohmann::json sweep_to_json(const Sweep& sweep);

}  // namespace weir
