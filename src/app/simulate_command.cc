#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "app/command.h"
#include "app/fit_search.h"
#include "app/flags.h"
#include "app/interrupt.h"
#include "app/model_source.h"
#include "app/output.h"
#include "app/predict.h"
#include "app/prediction_page.h"
#include "app/request_flags.h"
#include "app/sweep.h"
#include "app/sweep_page.h"
#include "report/format.h"
#include "report/trace.h"

namespace weir {
namespace {

struct SimulateCommandOptions {
  std::string model;
  SetupOptions setup;
  RequestOptions requests;
  std::optional<double> step_overhead_us = {};
  std::vector<std::string> sweep;
  std::optional<std::string> trace;
  bool nccl_only = false;
  bool expand = false;
  bool json = false;
};

class SimulateCommand final : public Command {
 public:
  void declare(CLI::App& app) override {
    app_ = &app;
    add_text(app,
             {.name = "-m,--model",
              .help = "a model folder, a config.json or a preset: " + preset_names(),
              .required = true},
             options_.model);
    add_request_flags(app, options_.setup, options_.requests);
    add_number(app,
               {.name = "--step-overhead-us",
                .help = "scheduling and sampling on the host before each step (default: what the "
                        "cluster file says, or 0)"},
               {.min = 0, .max = 1e9}, options_.step_overhead_us);
    add_switch(app,
               {.name = "--nccl-only",
                .help = "no custom all_reduce kernels as serving engines have them"},
               options_.nccl_only);
    add_switch(
        app,
        {.name = "--expand",
         .help = "play every message of a collective's algorithm, not the collective as one"},
        options_.expand);
    add_texts(app,
              {.name = "--sweep",
               .help = "NAME=A,B,... or NAME=FIRST..LAST (doubling; pool: every value) or "
                       "NAME=FIRST..LAST:STEP; NAME is seq (prompt and output together), "
                       "prompt-len, output-len, batch or a number of the strategy such as tp, pp, "
                       "pool. Twice for a grid. Speed-up is of generation time, against the "
                       "fewest devices that fit; efficiency is speed-up / ratio of devices"},
              options_.sweep);
    add_text(app,
             {.name = "--trace",
              .help = "write all steps and tokens here, the tasks and memory of the prefill and of "
                      "the last decode step, for ui.perfetto.dev"},
             options_.trace);
    add_switch(app, {.name = "--json", .help = "machine-readable, on stdout"}, options_.json);
    add_examples(app,
                 "  weir simulate -m fa-pool-4l -c h100-sxm -s tp_pp --tp 8 --prompt-len 4096\n"
                 "  weir simulate -m fa-pool-4l -c a100-sxm-80gb:2 -s tp_pp --tp 8 --pp 2 --json\n"
                 "  weir simulate -m fa-pool-4l -c h100-sxm:5 -s attention_pool --tp 8 "
                 "--sweep seq=512..65536 --sweep pool=0..32:8");
  }

  Result<ExitCode> run() override {
    auto model = load_model(options_.model);
    if (!model) return tl::unexpected(model.error());
    PredictionInput input = {
        .model = *std::move(model), .setup = options_.setup, .requests = options_.requests};
    input.simulation.step.collectives.custom_all_reduce = !options_.nccl_only;
    input.simulation.step.expand_collectives = options_.expand;
    if (options_.step_overhead_us) {
      input.simulation.between_steps =
          SimTime{static_cast<std::int64_t>(*options_.step_overhead_us * 1e3)};
    }
    input.keep_trace = options_.trace.has_value();
    return options_.sweep.empty() ? run_one(input) : run_all(input);
  }

 private:
  Result<ExitCode> run_one(const PredictionInput& input) const {
    if (auto status = check_output_path("--trace", options_.trace); !status)
      return tl::unexpected(status.error());
    const auto prediction = predict(input, Serving::yes);
    if (!prediction) return tl::unexpected(prediction.error());
    if (prediction->trace) {
      const auto& [timeline, memory] = *prediction->trace;
      if (auto status = write_trace(timeline, *options_.trace, {.memory = memory}); !status)
        return tl::unexpected(status.error());
    }
    std::vector<FittingChange> changes;
    if (prediction->shortage) {
      ProgressLine line(ProgressLine::Shown::on_terminal);
      line.show("does not fit: looking for what would");
      changes = find_fitting_changes(input);
    }
    if (options_.json) {
      print_json(prediction_to_json(input, *prediction, changes));
    } else {
      print(prediction_page(input, *prediction, changes));
    }
    return ExitCode::success;
  }

  Result<ExitCode> run_all(const PredictionInput& input) const {
    auto axes = parse_sweep(options_.sweep, options_.setup.strategy);
    if (!axes) return tl::unexpected(axes.error());
    if (auto status = check_flags_of(*axes); !status) return tl::unexpected(status.error());
    auto sweep = [&] {
      ProgressLine line(ProgressLine::Shown::on_terminal);
      return run_sweep(input, *std::move(axes), [&](std::size_t done, std::size_t all) {
        line.show(fmt::format("point {} of {}", done + 1, all));
        return !interrupted();
      });
    }();
    if (!sweep) return tl::unexpected(sweep.error());
    if (options_.json) {
      nlohmann::json json = sweep_to_json(*sweep);
      json["model"] = input.model.name;
      json["cluster"] = input.setup.cluster;
      json["strategy"] = input.setup.strategy.name;
      json["batch"] = input.requests.batch_size;
      json["prompt_len"] = input.requests.prompt_len;
      json["output_len"] = input.requests.output_len;
      print_json(json);
    } else {
      print(fmt::format("{} on {}, predicted: {}\n\n", printable(input.model.name),
                        printable(input.setup.cluster), title_of(*sweep)));
      print(sweep_page(*sweep));
    }
    return sweep->interrupted ? ExitCode::interrupted : ExitCode::success;
  }

  // What is swept is not given as well; a trace shows one step.
  [[nodiscard]] Status check_flags_of(const std::vector<SweepAxis>& axes) const {
    if (options_.trace) {
      return invalid_input(
          fmt::format("--trace: found {} with --sweep, allowed without", *options_.trace));
    }
    for (const SweepAxis& axis : axes) {
      if (!is_work_axis(axis)) continue;
      const std::string flag = axis.name == "seq" ? "--prompt-len" : "--" + axis.name;
      if (!is_given(*app_, flag)) continue;
      return invalid_input(
          fmt::format("{}: found a value with --sweep {}, allowed one of them", flag, axis.name));
    }
    return {};
  }

  // The strategy with what is the same at all points, and the lengths that are not swept.
  [[nodiscard]] std::string title_of(const Sweep& sweep) const {
    const auto swept = [&](std::string_view name) {
      return std::ranges::find(sweep.axes, name, &SweepAxis::name) != sweep.axes.end();
    };
    std::string text = options_.setup.strategy.name;
    for (const auto& [name, value] : options_.setup.strategy.values)
      text += fmt::format(" {}={}", name, printable(value));
    const auto& given = options_.setup.strategy.values;
    if (swept("pool") && !given.contains("pool_policy")) text += " pool_policy=fixed";
    if (!swept("batch")) text += fmt::format(", batch={}", options_.requests.batch_size);
    if (!swept("seq") && !swept("prompt-len"))
      text += fmt::format(", prompt-len={}", options_.requests.prompt_len);
    if (!swept("output-len")) text += fmt::format(", output-len={}", options_.requests.output_len);
    return text;
  }

  const CLI::App* app_ = nullptr;
  SimulateCommandOptions options_;
};

}  // namespace

std::unique_ptr<Command> make_simulate_command() { return std::make_unique<SimulateCommand>(); }

}  // namespace weir
