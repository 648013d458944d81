#include <nlohmann/json.hpp>

#include "app/command.h"
#include "app/flags.h"
#include "app/output.h"
#include "app/strategy_flags.h"

namespace weir {
namespace {

class StrategiesCommand final : public Command {
 public:
  void declare(CLI::App& app) override {
    add_switch(app, {.name = "--json", .help = "machine-readable on stdout"}, json_);
    add_examples(app, "  weir strategies");
  }

  Result<ExitCode> run() override {
    if (json_) {
      print_json(as_json());
    } else {
      print(strategy_help());
    }
    return ExitCode::success;
  }

 private:
  static nlohmann::json as_json() {
    auto list = nlohmann::json::array();
    for (const StrategyEntry& strategy : strategies()) {
      auto options = nlohmann::json::array();
      for (const OptionSpec& spec : strategy.options) {
        nlohmann::json option = {
            {"name", spec.name}, {"help", spec.help}, {"default", spec.default_value}};
        if (spec.choices.empty()) {
          option["min"] = spec.min;
          option["max"] = spec.max;
        } else {
          option["choices"] = spec.choices;
        }
        options.push_back(std::move(option));
      }
      list.push_back({{"name", strategy.name}, {"help", strategy.help}, {"options", options}});
    }
    return {{"strategies", list}};
  }

  bool json_ = false;
};

}  // namespace

std::unique_ptr<Command> make_strategies_command() { return std::make_unique<StrategiesCommand>(); }

}  // namespace weir
