#pragma once
// A chart as SVG: lines over a logarithmic axis, with marks on it.

#include <string>
#include <vector>

namespace weir::bench {

struct Line {
  std::string name;
  std::string colour;
  bool dashed = false;
  std::vector<double> values;  // One for each x.
};

struct Chart {
  std::string title;
  std::string x_title;
  std::string y_title;
  std::vector<double> x;  // Ascending, above 0.
  std::vector<Line> lines;
  struct Mark {
    std::string name;
    double x = 0;
  };
  std::vector<Mark> marks;
};

[[nodiscard]] std::string draw(const Chart& chart);

}  // namespace weir::bench
