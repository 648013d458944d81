#include <cmath>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "app/command.h"
#include "app/flags.h"
#include "app/model_source.h"
#include "app/output.h"
#include "checkpoint/preset.h"
#include "report/format.h"
#include "report/table.h"
#include "spec/model.h"
#include "spec/sizes.h"

namespace weir {
namespace {

double as_double(std::int64_t count) { return static_cast<double>(count); }

// The claim of the preset of this name, where it has its preset's full size.
std::optional<double> claimed_parameters(const ModelSpec& model) {
  for (const Preset& preset : presets()) {
    if (preset.name != model.name || !preset.claimed_parameters) continue;
    const auto full = preset_model(preset.name, {.dtype = model.weight_dtype});
    if (full && count_parameters(*full).total == count_parameters(model).total)
      return preset.claimed_parameters;
  }
  return std::nullopt;
}

struct NewModel {
  std::string preset;
  std::string folder;
  PresetOptions options;
  std::optional<DType> dtype;
  std::uint64_t seed = 0;
  bool force = false;
  bool progress = false;
};

struct ShownModel {
  std::string model;
};

class ModelCommand final : public Command {
 public:
  void declare(CLI::App& app) override {
    new_ = &add_subcommand(app, "new", "write a model folder in Hugging Face format");
    declare_new(*new_);
    show_ = &add_subcommand(app, "show", "shapes, exact parameter counts, bytes and FLOPs");
    add_text(*show_,
             {.name = "model",
              .help = "a model folder, a config.json or a preset: " + preset_names(),
              .required = true},
             shown_.model);
    for (CLI::App* command : {new_, show_})
      add_switch(*command, {.name = "--json", .help = "machine-readable on stdout"}, json_);
    add_examples(*show_, "  weir model show /tmp/tiny\n  weir model show fa-pool-4l --json");
    add_examples(app,
                 "  weir model new --preset tiny --out /tmp/tiny\n  weir model show /tmp/tiny");
  }

  Result<ExitCode> run() override { return is_named(*new_) ? write_new() : show(); }

 private:
  void declare_new(CLI::App& app) {
    std::string presets_help = "which model:";
    for (const Preset& preset : presets())
      presets_help += fmt::format("\n{}: {}", preset.name, preset.description);
    add_text(app, {.name = "--preset", .help = presets_help, .required = true}, made_.preset);
    add_text(app, {.name = "--out", .help = "the folder to write", .required = true}, made_.folder);
    add_number(app,
               {.name = "--scale",
                .help = "of the preset's width: a power of two, such as 0.125 (default 1)"},
               {.min = 0, .max = 1024}, made_.options.scale);
    add_dtype(app, {.name = "--dtype", .help = "of the weights (default f32)"}, made_.dtype);
    add_integer(app, {.name = "--vocab-size", .help = "instead of the preset's"}, {.min = 1},
                made_.options.vocab_size);
    add_integer(app,
                {.name = "--max-position", .help = "longest sequence, instead of the preset's"},
                {.min = 1}, made_.options.max_position);
    add_seed(app, made_.seed);
    add_switch(app, {.name = "--force", .help = "replace a folder that holds a model"},
               made_.force);
    add_switch(app, {.name = "--progress", .help = "progress on stderr even if it is no terminal"},
               made_.progress);
    add_examples(app,
                 "  weir model new --preset tiny --out /tmp/tiny\n"
                 "  weir model new --preset fa-pool-4l --scale 0.125 --dtype bf16 --out /tmp/pool");
  }

  Result<ExitCode> write_new() {
    made_.options.dtype = made_.dtype.value_or(DType::f32);
    const auto model = preset_model(made_.preset, made_.options);
    if (!model) return tl::unexpected(model.error());
    {
      ProgressLine line(made_.progress ? ProgressLine::Shown::always
                                       : ProgressLine::Shown::on_terminal);
      const auto show_progress = [&](ModelProgress progress) {
        line.show(fmt::format("writing {}: {:.0f}%", made_.folder,
                              100 * (progress.written / progress.total)));
      };
      const auto written = write_preset_model(
          made_.folder, made_.preset, made_.options,
          {.seed = made_.seed, .replace = made_.force, .progress = show_progress});
      if (!written) return tl::unexpected(written.error());
    }
    const Bytes bytes = weight_bytes(*model, model->weight_dtype);
    if (json_) {
      print_json({{"folder", made_.folder},
                  {"parameters", count_parameters(*model).total},
                  {"weight_bytes", bytes.value}});
    } else {
      print(fmt::format("{}: {} with {} parameters, {}\n", made_.folder, made_.preset,
                        format_count(as_double(count_parameters(*model).total)),
                        format_bytes(as_double(bytes.value))));
    }
    return ExitCode::success;
  }

  Result<ExitCode> show() const {
    const auto model = load_model(shown_.model);
    if (!model) return tl::unexpected(model.error());
    if (json_) {
      print_json(as_json(*model));
    } else {
      print(as_text(*model));
    }
    return ExitCode::success;
  }

  static nlohmann::json as_json(const ModelSpec& model) {
    const ParameterCount count = count_parameters(model);
    nlohmann::json json = {
        {"name", model.name},
        {"config", config_of(model)},
        {"parameters",
         {{"embedding", count.embedding},
          {"attention_per_layer", count.attention_per_layer},
          {"ffn_per_layer", count.ffn_per_layer},
          {"norms_per_layer", count.norms_per_layer},
          {"per_layer", count.per_layer()},
          {"final_norm", count.final_norm},
          {"lm_head", count.lm_head},
          {"total", count.total}}},
        {"weight_bytes", weight_bytes(model, model.weight_dtype).value},
        {"layer_weight_bytes", layer_weight_bytes(model, model.weight_dtype).value},
        {"kv_bytes_per_token_per_layer", kv_bytes_per_token_per_layer(model, model.weight_dtype)},
        {"linear_flops_per_token", linear_flops_per_token(model)},
        {"claimed_parameters", nullptr}};
    if (const auto claimed = claimed_parameters(model)) json["claimed_parameters"] = *claimed;
    return json;
  }

  static std::string as_text(const ModelSpec& model) {
    std::string text = render(shape_table(model)) + "\n" + render(parameter_table(model)) + "\n" +
                       render(cost_table(model));
    if (const auto claimed = claimed_parameters(model)) {
      const double true_count = as_double(count_parameters(model).total);
      text += fmt::format(
          "\nThe source notes claim {} parameters; these dimensions come to {} ({:+.1f}%).\n",
          format_count(*claimed), format_count(true_count), 100 * (true_count / *claimed - 1));
    }
    return text;
  }

  static Table shape_table(const ModelSpec& model) {
    Table table{.columns = {{.title = "model", .align = Align::left}, {.title = model.name}},
                .rows = {}};
    const auto add = [&](std::string name, std::string value) {
      table.rows.push_back({.cells = {std::move(name), std::move(value)}});
    };
    const auto count = [](std::int64_t n) { return fmt::format("{}", n); };
    add("architecture", std::string(to_string(model.architecture)));
    add("num_layers", count(model.num_layers));
    add("hidden_size", count(model.hidden_size));
    add("intermediate_size", count(model.intermediate_size));
    add("num_q_heads", count(model.num_q_heads));
    add("num_kv_heads", count(model.num_kv_heads));
    add("head_dim", count(model.head_dim));
    add("vocab_size", count(model.vocab_size));
    add("max_position", count(model.max_position));
    add("activation",
        fmt::format("{}{}", to_string(model.activation), model.gated_ffn ? ", gated" : ""));
    add("sliding_window", format_or_undefined(model.sliding_window, count));
    add("weight_dtype", std::string(to_string(model.weight_dtype)));
    return table;
  }

  static Table parameter_table(const ModelSpec& model) {
    const ParameterCount count = count_parameters(model);
    const std::int64_t element = size_in_bytes(model.weight_dtype);
    Table table{.columns = {{.title = "part", .align = Align::left},
                            {.title = "parameters"},
                            {.title = "times"},
                            {.title = "bytes"}},
                .rows = {}};
    const auto add = [&](std::string_view part, std::int64_t parameters, std::int64_t times) {
      table.rows.push_back(
          {.cells = {std::string(part), fmt::format("{}", parameters), fmt::format("{}", times),
                     format_bytes(as_double(parameters * times * element))}});
    };
    add("embedding", count.embedding, 1);
    add("attention", count.attention_per_layer, model.num_layers);
    add("FFN", count.ffn_per_layer, model.num_layers);
    add("norms", count.norms_per_layer, model.num_layers);
    add("final norm", count.final_norm, 1);
    add(model.tied_embeddings ? "lm_head (tied)" : "lm_head", count.lm_head, 1);
    add("total", count.total, 1);
    table.rows.back().rule_above = true;
    return table;
  }

  static Table cost_table(const ModelSpec& model) {
    Table table{.columns = {{.title = "", .align = Align::left}, {.title = ""}}, .rows = {}};
    const auto add = [&](std::string name, std::string value) {
      table.rows.push_back({.cells = {std::move(name), std::move(value)}});
    };
    add("weights of one layer",
        format_bytes(as_double(layer_weight_bytes(model, model.weight_dtype).value)));
    add("KV cache of one token",
        format_bytes(
            as_double(model.num_layers * kv_bytes_per_token_per_layer(model, model.weight_dtype))));
    add("matrix products of one token",
        format_quantity(as_double(linear_flops_per_token(model)), "FLOP"));
    const AttentionExtent full{.q_len = 1, .kv_len = model.max_position};
    add(fmt::format("attention of one token over {}", model.max_position),
        format_quantity(as_double(model.num_layers * attention_flops(model, full)), "FLOP"));
    return table;
  }

  CLI::App* new_ = nullptr;
  CLI::App* show_ = nullptr;
  NewModel made_;
  ShownModel shown_;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Command> make_model_command() { return std::make_unique<ModelCommand>(); }

}  // namespace weir
