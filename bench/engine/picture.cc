#include "bench/engine/picture.h"

#include <fmt/format.h>
#include <algorithm>
#include <cmath>

namespace weir::bench {
namespace {

constexpr double kWidth = 760;
constexpr double kHeight = 420;
constexpr double kLeft = 64;
constexpr double kRight = 20;
constexpr double kTop = 44;
constexpr double kBottom = 96;

class Canvas {
 public:
  explicit Canvas(const Chart& chart) : first_(chart.x.front()), last_(chart.x.back()) {
    for (const Line& line : chart.lines)
      for (const double value : line.values) most_ = std::max(most_, value);
  }
  [[nodiscard]] double x(double value) const {
    return kLeft + (kWidth - kLeft - kRight) * std::log(value / first_) / std::log(last_ / first_);
  }
  [[nodiscard]] double y(double value) const {
    return kHeight - kBottom - (kHeight - kTop - kBottom) * value / most_;
  }
  [[nodiscard]] double most() const { return most_; }

 private:
  double first_;
  double last_;
  double most_ = 1e-30;
};

std::string text(double x, double y, const std::string& anchor, const std::string& words) {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>\n", x, y, anchor,
                     words);
}

std::string line(double x1, double y1, double x2, double y2, const std::string& stroke) {
  return fmt::format("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" {}/>\n", x1, y1,
                     x2, y2, stroke);
}

std::string axes(const Chart& chart, const Canvas& canvas) {
  constexpr int kSteps = 5;
  const double floor = kHeight - kBottom;
  std::string svg;
  for (int i = 0; i <= kSteps; ++i) {
    const double value = canvas.most() * i / kSteps;
    svg += line(kLeft, canvas.y(value), kWidth - kRight, canvas.y(value), "stroke=\"#ddd\"");
    svg += text(kLeft - 6, canvas.y(value) + 4, "end", fmt::format("{:.3g}", value));
  }
  for (auto power = static_cast<int>(std::ceil(std::log2(chart.x.front())));
       std::exp2(power) <= chart.x.back(); ++power) {
    const double value = std::exp2(power);
    svg += line(canvas.x(value), floor, canvas.x(value), floor + 4, "stroke=\"#333\"");
    svg += text(canvas.x(value), floor + 18, "middle", fmt::format("{:g}", value));
  }
  svg += text((kLeft + kWidth - kRight) / 2, floor + 38, "middle", chart.x_title);
  svg += text(kLeft, kTop - 8, "start", chart.y_title);
  for (const Chart::Mark& mark : chart.marks) {
    if (mark.x < chart.x.front() || mark.x > chart.x.back()) continue;
    svg += line(canvas.x(mark.x), kTop, canvas.x(mark.x), floor,
                "stroke=\"#999\" stroke-dasharray=\"2 3\"");
    svg += text(canvas.x(mark.x) + 3, kTop + 10, "start", mark.name);
  }
  return svg;
}

}  // namespace

std::string draw(const Chart& chart) {
  const Canvas canvas(chart);
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" "
      "font-family=\"sans-serif\" "
      "font-size=\"12\">\n<rect width=\"{0}\" height=\"{1}\" fill=\"white\"/>\n",
      kWidth, kHeight);
  svg += text(kWidth / 2, 18, "middle", chart.title);
  svg += axes(chart, canvas);
  for (std::size_t i = 0; i < chart.lines.size(); ++i) {
    const Line& one = chart.lines[i];
    const std::string stroke =
        fmt::format("stroke=\"{}\" fill=\"none\" stroke-width=\"2\"{}", one.colour,
                    one.dashed ? " stroke-dasharray=\"6 4\"" : "");
    svg += "<polyline points=\"";
    for (std::size_t at = 0; at < chart.x.size(); ++at)
      svg += fmt::format("{:.1f},{:.1f} ", canvas.x(chart.x[at]), canvas.y(one.values[at]));
    svg += fmt::format("\" {}/>\n", stroke);
    // Two columns below the axis.
    const std::size_t row = i / 2;
    const double x = kLeft + static_cast<double>(i % 2) * (kWidth - kLeft) / 2;
    const double y = kHeight - 40 + 18 * static_cast<double>(row);
    svg += line(x, y - 4, x + 28, y - 4, stroke);
    svg += text(x + 34, y, "start", one.name);
  }
  return svg + "</svg>\n";
}

}  // namespace weir::bench
