#include <array>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>

#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>
#include <nlohmann/json.hpp>

#include "app/command.h"
#include "app/flags.h"
#include "app/model_source.h"
#include "app/output.h"
#include "app/plan_tables.h"
#include "app/request_flags.h"
#include "app/setup.h"
#include "checkpoint/staging.h"
#include "plan/plan_chakra.h"
#include "plan/plan_dot.h"
#include "plan/plan_json.h"
#include "plan/validate.h"

namespace weir {
namespace {

struct PlanOptions {
  std::optional<std::string> model;
  SetupOptions setup;
  RequestOptions requests;
  std::size_t phase = 0;  // Index into kPhases.
  std::optional<std::string> in;
  std::optional<std::string> json;
  std::optional<std::string> dot;
  std::optional<std::string> svg;
  std::optional<std::string> chakra;  // Prefix of the files.
};
constexpr std::array<std::string_view, 2> kPhases = {"prefill", "decode"};

// Graphviz's `dot -Tsvg`, found in PATH.
Status write_svg(const std::string& dot_text, const std::string& path) {
  std::string input = path + ".dot-XXXXXX";
  const int descriptor = mkstemp(input.data());
  if (descriptor < 0) return invalid_input(fmt::format("--svg: cannot write beside {}", path));
  close(descriptor);
  Status status = write_text_file(input, dot_text);
  if (status) {
    const std::array<const char*, 6> arguments = {"dot",        "-Tsvg",       "-o",
                                                  path.c_str(), input.c_str(), nullptr};
    pid_t child = 0;
    int exit_status = -1;
    // NOLINTNEXTLINE(cppcoreguidelines-pro-type-const-cast): POSIX's signature; it does not write.
    auto* const unwritten = const_cast<char* const*>(arguments.data());
    const int error = posix_spawnp(&child, "dot", nullptr, nullptr, unwritten, environ);
    if (error == 0) waitpid(child, &exit_status, 0);
    if (error != 0 || exit_status != 0) {
      status = run_failed(fmt::format(
          "--svg: found that Graphviz's program dot {}, allowed where it works; --dot writes its "
          "input",
          error != 0 ? "does not start" : "fails"));
    }
  }
  unlink(input.c_str());
  return status;
}

class PlanCommand final : public Command {
 public:
  void declare(CLI::App& app) override {
    add_text(app,
             {.name = "-m,--model",
              .help = "a model folder, a config.json or a preset: " + preset_names()},
             options_.model);
    add_request_flags(app, options_.setup, options_.requests);
    add_choice(app,
               {.name = "--phase",
                .help = "the step to plan: all of the prompt, or the last token (default prefill)"},
               kPhases, options_.phase);
    add_text(app, {.name = "--in", .help = "read this plan, check it and show it; no other input"},
             options_.in);
    declare_outputs(app);
    add_examples(app,
                 "  weir plan -m fa-pool-4l -c h100-sxm -s tp_pp --tp 8 --prompt-len 4096\n"
                 "  weir plan -m tiny -s tp_pp --tp 2 --pp 2 --phase decode --svg plan.svg\n"
                 "  weir plan -m tiny --json plan.json && weir plan --in plan.json");
  }

  Result<ExitCode> run() override {
    const bool json_to_stdout = options_.json == "-";
    Status paths = check_output_path("--dot", options_.dot);
    if (paths) paths = check_output_path("--svg", options_.svg);
    if (paths) paths = check_output_path("--chakra", options_.chakra);
    if (paths && !json_to_stdout) paths = check_output_path("--json", options_.json);
    if (!paths) return tl::unexpected(paths.error());
    auto plan = options_.in ? read_plan() : make_plan();
    if (!plan) return tl::unexpected(plan.error());
    if (json_to_stdout) {
      print(plan_to_json_text(plan->plan()));
    } else {
      print(fmt::format("{}: {}, {} requests of up to {} new tokens and {} positions\n\n",
                        (*plan)->strategy, (*plan)->model.name, (*plan)->batch_size(),
                        (*plan)->limits[0].q_len, (*plan)->limits[0].kv_len));
      print(render(device_table(*plan, (*plan)->limits)));
      print(layer_tables(*plan, (*plan)->limits));
    }
    if (auto written = write_files(plan->plan()); !written) return tl::unexpected(written.error());
    if (options_.chakra) {
      if (auto written = write_chakra(*plan, *options_.chakra); !written)
        return tl::unexpected(written.error());
    }
    return ExitCode::success;
  }

 private:
  void declare_outputs(CLI::App& app) {
    add_output(app,
               {.name = "--json",
                .help = "the plan as JSON, to this file or, without one, to stdout and nothing "
                        "else there"},
               options_.json);
    add_text(app, {.name = "--dot", .help = "write the plan as Graphviz DOT here"}, options_.dot);
    add_text(app, {.name = "--svg", .help = "draw the plan here, with Graphviz"}, options_.svg);
    add_text(app,
             {.name = "--chakra",
              .help = "write Chakra execution traces: PREFIX.<rank>.et and PREFIX.groups.json"},
             options_.chakra);
  }

  Result<ValidPlan> read_plan() {
    if (options_.model) {
      return invalid_input(
          fmt::format("--model: found {} with --in, allowed one of them", *options_.model));
    }
    const auto json = read_json_file(*options_.in);
    if (!json) return tl::unexpected(json.error());
    auto plan = plan_from_json(*json, *options_.in);
    if (!plan) return tl::unexpected(plan.error());
    return checked(*std::move(plan), *options_.in);
  }

  Result<ValidPlan> make_plan() {
    if (!options_.model)
      return invalid_input("--model: found nothing, allowed a model, or --in with a plan");
    const auto model = load_model(*options_.model);
    if (!model) return tl::unexpected(model.error());
    if (auto status = check_lengths(*model, options_.requests); !status)
      return tl::unexpected(status.error());
    auto setup = set_up(*model, options_.setup);
    if (!setup) return tl::unexpected(setup.error());

    const bool prefill = options_.phase == 0;
    const std::int64_t longest = options_.requests.seq_len();
    const std::int64_t past_len = prefill ? 0 : longest - 1;
    const std::int64_t q_len = prefill ? options_.requests.prompt_len : 1;
    const auto batch = static_cast<std::size_t>(options_.requests.batch_size);
    const StepShape shape(batch, {.past_len = past_len, .q_len = q_len, .max_len = longest});
    setup->header.limits.assign(batch, {.q_len = q_len, .kv_len = past_len + q_len});
    setup->header.logits = LogitsWanted::last;
    return checked(lower(setup->header, setup->strategy.strategy->layouts(shape)),
                   setup->strategy.label);
  }

  static Result<ValidPlan> checked(Plan plan, const std::string& source) {
    auto valid = validate(std::move(plan));
    if (!valid)
      return invalid_input(
          fmt::format("{}: no valid plan: {}", source, join_problems(valid.error())));
    return *std::move(valid);
  }

  // For the plan's limits.
  static Status write_chakra(const ValidPlan& plan, const std::string& prefix) {
    const ChakraTraces traces(plan, plan->limits);
    for (std::size_t rank = 0; rank < plan->devices.size(); ++rank) {
      const std::string path = fmt::format("{}.{}.et", prefix, rank);
      auto status = write_text_file(path, traces.of(static_cast<DeviceId>(rank)));
      if (!status) return status;
    }
    return write_text_file(prefix + ".groups.json", traces.groups_json());
  }

  Status write_files(const Plan& plan) {
    if (options_.json && *options_.json != "-") {
      if (auto status = write_text_file(*options_.json, plan_to_json_text(plan)); !status)
        return status;
    }
    if (options_.dot) {
      if (auto status = write_text_file(*options_.dot, plan_to_dot(plan)); !status) return status;
    }
    return options_.svg ? write_svg(plan_to_dot(plan), *options_.svg) : Status{};
  }

  PlanOptions options_;
};

}  // namespace

std::unique_ptr<Command> make_plan_command() { return std::make_unique<PlanCommand>(); }

}  // namespace weir
