#pragma once
// The little language in which the data files say how a claimed figure is recomputed: numbers,
// + - * /, parentheses, names, calls, and figures of the notes themselves in brackets:
//
//   tpot(baseline, seq_len) / tpot(pool, seq_len)      [tpot.baseline] * 2 + ceil(seq_len / 1024)
//
// A parsed expression is plain data. What names, calls and brackets mean is the reader's matter.

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.h"

namespace weir {

inline constexpr std::size_t kMaxExpressionLength = 1000;  // Characters.
inline constexpr int kMaxExpressionDepth = 32;

// A figure of the notes: [claim], [claim@row], [note:claim@row]; with "?" at its end it may be
// absent, and then what it is part of has no value.
struct FigureName {
  std::string note;  // Empty: the note that asks.
  std::string claim;
  std::string row;  // Empty: the row that asks.
  bool optional = false;

  bool operator==(const FigureName&) const = default;
};

struct Expression {
  enum class Kind : std::uint8_t { number, name, figure, call, add, subtract, multiply, divide };
  Kind kind = Kind::number;
  double number = 0;
  std::string name = {};   // Of a name or a call.
  FigureName figure = {};  // Of a figure.
  std::vector<Expression> operands = {};

  bool operator==(const Expression&) const = default;
};

// Fails with what was found and what may stand there. "-x" is read as 0 - x.
[[nodiscard]] Result<Expression> parse_expression(std::string_view text);

// Everything of one kind in an expression, in the order written.
[[nodiscard]] std::vector<const Expression*> parts_of(const Expression& expression,
                                                      Expression::Kind kind);

// A call's argument: a bare name stands for itself, anything else is evaluated first.
using Argument = std::variant<std::string, double>;

struct Scope {
  std::function<Result<double>(const std::string& name)> name;
  // nullopt for an optional figure that is absent.
  std::function<Result<std::optional<double>>(const FigureName& figure)> figure;
  std::function<Result<double>(const std::string& name, std::span<const Argument>)> call;
  // Whether a bare name in a call stands for itself.
  std::function<bool(const std::string& name)> is_word;
};
// nullopt where an optional figure is absent; an error where the scope has one, or the value is not
// finite. min, max, ceil and floor are known here, all other calls are the scope's.
[[nodiscard]] Result<std::optional<double>> evaluate(const Expression& expression,
                                                     const Scope& scope);

}  // namespace weir
