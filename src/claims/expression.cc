#include "claims/expression.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include <fmt/format.h>

#include "base/check.h"

namespace weir {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool starts_name(char c) { return (c >= 'a' && c <= 'z') || c == '_'; }
bool continues_name(char c) { return starts_name(c) || is_digit(c); }

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Result<Expression> parse() {
    if (text_.size() > kMaxExpressionLength) {
      return invalid_input(
          fmt::format("found {} characters, allowed {}", text_.size(), kMaxExpressionLength));
    }
    auto whole = sum(0);
    if (whole && !at_end()) return wrong("an operator or the end");
    return whole;
  }

 private:
  void skip_blanks() {
    while (place_ < text_.size() && text_[place_] == ' ') ++place_;
  }
  bool at_end() {
    skip_blanks();
    return place_ == text_.size();
  }
  // Takes the character if it stands here.
  bool take(char c) {
    if (at_end() || text_[place_] != c) return false;
    ++place_;
    return true;
  }
  tl::unexpected<Error> wrong(std::string_view allowed) const {
    return invalid_input(fmt::format(
        "found {} at character {}, allowed {}",
        place_ < text_.size() ? fmt::format("\"{}\"", text_.substr(place_, 1)) : "the end",
        place_ + 1, allowed));
  }
  static Expression joined(Expression::Kind kind, Expression left, Expression right) {
    Expression whole{.kind = kind};
    whole.operands.push_back(std::move(left));
    whole.operands.push_back(std::move(right));
    return whole;
  }

  Result<Expression> sum(int depth) {
    if (depth > kMaxExpressionDepth) {
      return invalid_input(fmt::format("found more than {} levels, allowed {}", kMaxExpressionDepth,
                                       kMaxExpressionDepth));
    }
    auto left = product(depth);
    while (left) {
      const auto kind = take('+')   ? Expression::Kind::add
                        : take('-') ? Expression::Kind::subtract
                                    : Expression::Kind::number;
      if (kind == Expression::Kind::number) return left;
      auto right = product(depth);
      if (!right) return right;
      left = joined(kind, *std::move(left), *std::move(right));
    }
    return left;
  }

  Result<Expression> product(int depth) {
    auto left = factor(depth);
    while (left) {
      const auto kind = take('*')   ? Expression::Kind::multiply
                        : take('/') ? Expression::Kind::divide
                                    : Expression::Kind::number;
      if (kind == Expression::Kind::number) return left;
      auto right = factor(depth);
      if (!right) return right;
      left = joined(kind, *std::move(left), *std::move(right));
    }
    return left;
  }

  Result<Expression> factor(int depth) {
    if (depth > kMaxExpressionDepth) return sum(depth);  // Which refuses the depth.
    if (take('-')) {
      auto operand = factor(depth + 1);
      if (!operand) return operand;
      return joined(Expression::Kind::subtract, {}, *std::move(operand));
    }
    if (take('(')) {
      auto inner = sum(depth + 1);
      if (inner && !take(')')) return wrong("an operator or \")\"");
      return inner;
    }
    if (take('[')) return figure();
    if (at_end()) return wrong("a number, a name, \"[\" or \"(\"");
    if (is_digit(text_[place_])) return number();
    if (starts_name(text_[place_])) return name_or_call(depth);
    return wrong("a number, a name, \"[\" or \"(\"");
  }

  Result<Expression> number() {
    Expression result;
    const char* begin = text_.data() + place_;
    const auto [end, error] = std::from_chars(begin, text_.data() + text_.size(), result.number);
    if (error != std::errc()) return wrong("a number");
    place_ += static_cast<std::size_t>(end - begin);
    return result;
  }

  Result<Expression> name_or_call(int depth) {
    const std::size_t begin = place_;
    while (place_ < text_.size() && continues_name(text_[place_])) ++place_;
    Expression result{.kind = Expression::Kind::name,
                      .name = std::string(text_.substr(begin, place_ - begin))};
    if (!take('(')) return result;
    result.kind = Expression::Kind::call;
    if (take(')')) return result;
    do {
      auto operand = sum(depth + 1);
      if (!operand) return operand;
      result.operands.push_back(*std::move(operand));
    } while (take(','));
    if (!take(')')) return wrong("\",\" or \")\"");
    return result;
  }

  Result<Expression> figure() {
    const std::size_t end = text_.find(']', place_);
    if (end == std::string_view::npos) return wrong("a figure's name and \"]\"");
    std::string_view inside = text_.substr(place_, end - place_);
    Expression result{.kind = Expression::Kind::figure};
    if (inside.ends_with('?')) {
      result.figure.optional = true;
      inside.remove_suffix(1);
    }
    if (const auto colon = inside.find(':'); colon != std::string_view::npos) {
      result.figure.note = inside.substr(0, colon);
      inside.remove_prefix(colon + 1);
    }
    if (const auto at = inside.find('@'); at != std::string_view::npos) {
      result.figure.row = inside.substr(at + 1);
      inside = inside.substr(0, at);
    }
    if (inside.empty()) return wrong("a figure's name");
    result.figure.claim = inside;
    place_ = end + 1;
    return result;
  }

  std::string_view text_;
  std::size_t place_ = 0;
};

void collect(const Expression& expression, Expression::Kind kind,
             std::vector<const Expression*>& parts) {
  if (expression.kind == kind) parts.push_back(&expression);
  for (const Expression& operand : expression.operands) collect(operand, kind, parts);
}

using EvaluatedNumber = Result<std::optional<double>>;

EvaluatedNumber call_own(const std::string& name, const std::vector<Argument>& arguments,
                         bool& known) {
  known = true;
  std::vector<double> numbers;
  for (const Argument& argument : arguments) {
    if (const double* number = std::get_if<double>(&argument)) numbers.push_back(*number);
  }
  const bool all = numbers.size() == arguments.size();
  if (name == "min" && all && !numbers.empty()) return std::ranges::min(numbers);
  if (name == "max" && all && !numbers.empty()) return std::ranges::max(numbers);
  if (name == "ceil" && all && numbers.size() == 1) return std::ceil(numbers[0]);
  if (name == "floor" && all && numbers.size() == 1) return std::floor(numbers[0]);
  known = false;
  return std::nullopt;
}

EvaluatedNumber evaluate_any(const Expression& expression, const Scope& scope);

EvaluatedNumber evaluate_call(const Expression& call, const Scope& scope) {
  std::vector<Argument> arguments;
  for (const Expression& operand : call.operands) {
    if (operand.kind == Expression::Kind::name && scope.is_word(operand.name)) {
      arguments.emplace_back(operand.name);
      continue;
    }
    auto value = evaluate(operand, scope);
    if (!value || !*value) return value;
    arguments.emplace_back(**value);
  }
  bool known = false;
  auto own = call_own(call.name, arguments, known);
  if (known) return own;
  const auto value = scope.call(call.name, arguments);
  if (!value) return tl::unexpected(value.error());
  return *value;
}

double combine(Expression::Kind kind, double left, double right) {
  using enum Expression::Kind;
  switch (kind) {
    case add:
      return left + right;
    case subtract:
      return left - right;
    case multiply:
      return left * right;
    case divide:
      return left / right;
    case number:
    case name:
    case figure:
    case call:
      break;
  }
  CHECK(false, "the expression joins two operands");
}

EvaluatedNumber evaluate_pair(const Expression& expression, const Scope& scope) {
  auto left = evaluate(expression.operands[0], scope);
  if (!left || !*left) return left;
  auto right = evaluate(expression.operands[1], scope);
  if (!right || !*right) return right;
  return combine(expression.kind, **left, **right);
}

EvaluatedNumber evaluate_any(const Expression& expression, const Scope& scope) {
  switch (expression.kind) {
    case Expression::Kind::number:
      return expression.number;
    case Expression::Kind::name: {
      const auto value = scope.name(expression.name);
      if (!value) return tl::unexpected(value.error());
      return *value;
    }
    case Expression::Kind::figure:
      return scope.figure(expression.figure);
    case Expression::Kind::call:
      return evaluate_call(expression, scope);
    case Expression::Kind::add:
    case Expression::Kind::subtract:
    case Expression::Kind::multiply:
    case Expression::Kind::divide:
      return evaluate_pair(expression, scope);
  }
  CHECK(false, "unknown kind");
}

}  // namespace

Result<Expression> parse_expression(std::string_view text) { return Parser(text).parse(); }

std::vector<const Expression*> parts_of(const Expression& expression, Expression::Kind kind) {
  std::vector<const Expression*> parts;
  collect(expression, kind, parts);
  return parts;
}

Result<std::optional<double>> evaluate(const Expression& expression, const Scope& scope) {
  auto value = evaluate_any(expression, scope);
  if (value && *value && !std::isfinite(**value))
    return invalid_input("found a value that is not finite, allowed a number");
  return value;
}

}  // namespace weir
