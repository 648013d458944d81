#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "app/command.h"
#include "app/flags.h"
#include "app/interrupt.h"
#include "app/output.h"
#include "app/rank_session.h"
#include "app/rank_setup.h"
#include "app/setup.h"
#include "app/stop_filter.h"
#include "comm/ranks.h"
#include "engine/check.h"
#include "exec/follower.h"
#include "report/metrics_page.h"
#include "report/trace.h"
#include "result/metrics.h"
#include "text/tokenizer.h"

namespace weir {
namespace {

constexpr std::int64_t kMostNewTokens = std::int64_t{1} << 31;
constexpr std::int64_t kMostPrompts = 4096;
constexpr std::string_view kName = "run";

struct RunOptions {
  std::string model;
  std::vector<std::string> prompts;
  std::vector<std::string> prompt_files;
  std::int64_t num_tokens = 64;
  std::int64_t prefill_chunk = GenerationOptions{}.prefill_chunk;
  std::int64_t in_flight = GenerationOptions{}.in_flight;
  SamplingOptions sampling;
  std::vector<std::string> stops;
  bool ignore_eos = false;
  SetupOptions setup;
  bool check = false;
  std::optional<std::string> trace_path;
  bool json = false;
  bool progress = false;
};

// The text of one request as it comes.
class TextOfRequest {
 public:
  TextOfRequest(const Tokenizer& tokenizer, const std::vector<std::string>& stops)
      : decoder_(tokenizer, {.skip_special_tokens = true}), filter_(stops) {}

  // What the token makes certain.
  std::string push(std::int64_t token) { return keep(filter_.push(decoder_.push(token))); }
  std::string finish() {
    std::string rest = filter_.push(decoder_.flush());
    rest += filter_.flush();
    return keep(std::move(rest));
  }
  [[nodiscard]] bool stopped() const { return filter_.stopped(); }
  [[nodiscard]] const std::string& text() const { return text_; }

 private:
  std::string keep(std::string part) {
    text_ += part;
    return part;
  }

  StreamDecoder decoder_;
  StopFilter filter_;
  std::string text_;
};

Result<std::vector<std::string>> read_prompts(const RunOptions& options) {
  std::vector<std::string> prompts = options.prompts;
  for (const std::string& path : options.prompt_files) {
    auto text = read_text_file(path, kMaxTextBytes);
    if (!text) return tl::unexpected(text.error());
    prompts.push_back(*std::move(text));
  }
  const auto count = static_cast<std::int64_t>(prompts.size());
  if (count >= 1 && count <= kMostPrompts) return prompts;
  return invalid_input(
      fmt::format("--prompt: found {} of --prompt and --prompt-file together, allowed 1..{}", count,
                  kMostPrompts));
}

Result<std::vector<GenerationRequest>> make_requests(const RunOptions& options,
                                                     const ModelSpec& model,
                                                     const Tokenizer& tokenizer) {
  const auto prompts = read_prompts(options);
  if (!prompts) return tl::unexpected(prompts.error());
  std::vector<GenerationRequest> requests;
  for (std::size_t i = 0; i < prompts->size(); ++i) {
    auto tokens = tokenizer.encode((*prompts)[i]);
    if (!tokens) {
      const std::string source = i < options.prompts.size()
                                     ? std::string("--prompt")
                                     : options.prompt_files[i - options.prompts.size()];
      return invalid_input(fmt::format("{}: {}", source, tokens.error().message));
    }
    requests.push_back(
        {.prompt = *std::move(tokens),
         .max_new_tokens = options.num_tokens,
         .sampling = options.sampling,
         .stop_ids = options.ignore_eos ? std::vector<std::int64_t>{} : model.eos_token_ids});
  }
  return requests;
}

nlohmann::json comparison_to_json(const Comparison& comparison) {
  nlohmann::json json = {{"agrees", comparison.agrees()},
                         {"tokens_compared", comparison.tokens_compared},
                         {"tokens_differing", comparison.tokens_differing},
                         {"ties", comparison.ties},
                         {"max_logit_difference", comparison.max_logit_difference},
                         {"tolerance", comparison.tolerance},
                         {"first_problem", nullptr}};
  if (comparison.first_problem) json["first_problem"] = *comparison.first_problem;
  return json;
}

// Where the ranks ran, and how far their clocks may be off rank 0's after being aligned.
nlohmann::json ranks_to_json(const Ranks& ranks) {
  auto json = nlohmann::json::array();
  for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
    json.push_back({{"host", ranks.host(rank)},
                    {"clock_offset_us", static_cast<double>(ranks.clock(rank).offset.ns) * 1e-3},
                    {"clock_error_us", static_cast<double>(ranks.clock(rank).error.ns) * 1e-3}});
  }
  return json;
}

class RunCommand final : public Command {
 public:
  void declare(CLI::App& app) override {
    add_text(app, {.name = "-m,--model", .help = "a model folder", .required = true},
             options_.model);
    add_texts(app, {.name = "-p,--prompt", .help = "a text; several are one batch"},
              options_.prompts);
    add_texts(app, {.name = "--prompt-file", .help = "a file with a text; several are one batch"},
              options_.prompt_files);
    add_integer(app, {.name = "-n,--generate", .help = "tokens per request at most (default 64)"},
                {.min = 1, .max = kMostNewTokens}, options_.num_tokens);
    add_setup_flags(app, options_.setup);
    add_integer(
        app,
        {.name = "--prefill-chunk", .help = "prompt tokens of a request per step (default 512)"},
        {.min = 1, .max = kMaxPrefillChunk}, options_.prefill_chunk);
    add_integer(app,
                {.name = "--in-flight",
                 .help = "groups of requests whose steps do not wait for each other, which keeps "
                         "pipelines full (default 1)"},
                {.min = 1, .max = kMostInFlight}, options_.in_flight);
    declare_sampling(app);
    add_switch(
        app,
        {.name = "--check", .help = "run again on a single device and compare tokens and logits"},
        options_.check);
    add_text(app, {.name = "--trace", .help = "write a trace for https://ui.perfetto.dev here"},
             options_.trace_path);
    add_switch(app, {.name = "--json", .help = "machine-readable on stdout, nothing else there"},
               options_.json);
    add_switch(app, {.name = "--progress", .help = "progress on stderr even if it is no terminal"},
               options_.progress);
    add_examples(app,
                 "  weir model new --preset tiny --out /tmp/tiny\n"
                 "  weir run -m /tmp/tiny -p 'Once upon a time' -n 32\n"
                 "  weir run -m /tmp/tiny -p 'A weir' -s tp_pp --tp 2 --check\n"
                 "  weir run -m /tmp/tiny -p one -p two -s tp_pp --tp 1 --pp 2 --microbatches 2 "
                 "--trace /tmp/trace.json\n\nStrategies:\n" +
                     strategy_help());
  }

  Result<ExitCode> run() override {
    return take_role({.lead = [this](Ranks* ranks) { return lead(ranks); },
                      .obey = [this](Ranks& ranks) { return obey(ranks); }});
  }

 private:
  // The whole run; with ranks, rank 0's part of it.
  Result<ExitCode> lead(Ranks* ranks) {
    const auto model = open_rank_model(options_.model);
    std::optional<RankLeader> leader;
    if (ranks != nullptr) {
      leader.emplace(*ranks);
      if (auto all = leader->gather(identity_of(kName, model), options_.setup.threads_per_device);
          !all)
        return tl::unexpected(all.error());
      options_.setup.rank_machine = leader->machine();
    }
    if (!model) return tl::unexpected(model.error());
    // Other ranks' hosts need not have that folder.
    if (auto checked = check_output_path("--trace", options_.trace_path); !checked)
      return tl::unexpected(checked.error());
    const auto setup = set_up(model->model, options_.setup);
    if (!setup) return tl::unexpected(setup.error());
    if (ranks != nullptr && options_.setup.cluster != "local") {
      if (auto placed = check_placement(*ranks, setup->cluster); !placed)
        return tl::unexpected(placed.error());
    }
    auto devices = ranks == nullptr ? local_devices(*setup) : rank_devices(*setup, ranks->size());
    if (!devices) return tl::unexpected(devices.error());
    const auto tokenizer = Tokenizer::load(options_.model);
    if (!tokenizer) return tl::unexpected(tokenizer.error());
    const auto requests = make_requests(options_, model->model, *tokenizer);
    if (!requests) return tl::unexpected(requests.error());

    if (leader) leader->go(*devices);
    ranks_ = ranks;
    auto generation = stream({.devices = *std::move(devices), .ranks = ranks}, model->checkpoint,
                             *setup, *requests, *tokenizer);
    if (!generation) return give_up(generation.error());
    return conclude(model->checkpoint, *setup, *requests, *generation);
  }

  // The part of any other rank, which says nothing.
  Result<ExitCode> obey(Ranks& ranks) const {
    const auto model = open_rank_model(options_.model);
    const auto device =
        await_go(ranks, identity_of(kName, model), options_.setup.threads_per_device);
    // Rank 0 says why, and its exit code is the run's: launchers may add up those of all ranks.
    if (!device) return ExitCode::success;
    const Status followed = follow(ranks, model->checkpoint, model->model, *device);
    if (followed) return ExitCode::success;
    await_end(ranks, followed.error());
  }

  Result<ExitCode> give_up(const Error& error) const {
    if (ranks_ == nullptr) return tl::unexpected(error);
    end_all(*ranks_, error);
  }

  Result<ExitCode> conclude(const Checkpoint& checkpoint, const Setup& setup,
                            std::span<const GenerationRequest> requests,
                            const Generation& generation) {
    std::optional<Comparison> comparison;
    if (options_.check && !generation.cancelled) {
      auto compared = check(checkpoint, setup, requests, generation);
      if (!compared) return tl::unexpected(compared.error());
      comparison = *std::move(compared);
    }
    if (auto reported = report(setup, requests, generation, comparison); !reported)
      return tl::unexpected(reported.error());
    if (generation.cancelled) return ExitCode::interrupted;
    if (comparison && !comparison->agrees())
      return run_failed(fmt::format("--check: {}", *comparison->first_problem));
    return ExitCode::success;
  }

  void declare_sampling(CLI::App& app) {
    add_number(app, {.name = "--temperature", .help = "0 takes the likeliest token (default 0)"},
               {.min = 0, .max = 1e6}, options_.sampling.temperature);
    add_integer(app, {.name = "--top-k", .help = "draw from the k likeliest; 0: all (default 0)"},
                {.min = 0, .max = kMaxVocabSize}, options_.sampling.top_k);
    add_number(app,
               {.name = "--top-p",
                .help = "draw from the likeliest that reach this probability (default 1)"},
               {.min = 0, .max = 1}, options_.sampling.top_p);
    add_seed(app, options_.sampling.seed);
    add_texts(app,
              {.name = "--stop", .help = "a text that ends a request and is left out; repeatable"},
              options_.stops);
    add_switch(app, {.name = "--ignore-eos", .help = "go on after the model's end token"},
               options_.ignore_eos);
  }

  // Generates; the text of a single request is printed as it comes.
  Result<Generation> stream(ExecutorOptions executor, const Checkpoint& checkpoint,
                            const Setup& setup, std::span<const GenerationRequest> requests,
                            const Tokenizer& tokenizer) {
    if (std::ranges::find(options_.stops, "") != options_.stops.end())
      return invalid_input("--stop: found an empty text, allowed a longer one");
    ProgressLine line(options_.progress ? ProgressLine::Shown::always
                                        : ProgressLine::Shown::on_terminal);
    texts_.clear();
    for (std::size_t i = 0; i < requests.size(); ++i)
      texts_.emplace_back(tokenizer, options_.stops);
    const bool prints_at_once = requests.size() == 1 && !options_.json;
    auto generation = generate_on(
        std::move(executor), checkpoint, setup, requests,
        {.prefill_chunk = options_.prefill_chunk,
         .in_flight = options_.in_flight,
         .keep_logits = options_.check,
         .cancel = &interrupted(),
         .on_token =
             [&](std::size_t request, std::int64_t token) {
               const std::string part = texts_[request].push(token);
               if (prints_at_once) {
                 line.clear();
                 print(part);
               }
               return texts_[request].stopped() ? AfterToken::stop : AfterToken::go_on;
             },
         .on_progress =
             [&](const GenerationProgress& progress) {
               if (prints_at_once && progress.output_tokens > 0) return;
               line.show(fmt::format("prompt {}/{} tokens, {} generated", progress.prompt_done,
                                     progress.prompt_tokens, progress.output_tokens));
             }});
    line.clear();
    for (TextOfRequest& text : texts_) {
      const std::string rest = text.finish();
      if (prints_at_once) print(rest);
    }
    if (prints_at_once && generation) print("\n");
    return generation;
  }

  // The same requests on one device, made to follow the tokens of the run.
  Result<Comparison> check(const Checkpoint& checkpoint, const Setup& setup,
                           std::span<const GenerationRequest> requests,
                           const Generation& generation) {
    SetupOptions single;
    single.kv_dtype = setup.header.kv_dtype;
    single.activation_dtype = setup.header.activation_dtype;
    const auto reference_setup = set_up(setup.header.model, single);
    if (!reference_setup) return tl::unexpected(reference_setup.error());
    const std::vector<GenerationRequest> forced = forced_to_follow(requests, generation);
    const auto reference = generate(checkpoint, *reference_setup, forced,
                                    {.prefill_chunk = options_.prefill_chunk,
                                     .keep_logits = true,
                                     .record_tasks = false,
                                     .cancel = &interrupted()});
    if (!reference) return tl::unexpected(reference.error());
    std::int64_t longest = 1;
    for (const GenerationRequest& request : forced) {
      longest = std::max(longest,
                         static_cast<std::int64_t>(request.prompt.size()) + request.max_new_tokens);
    }
    const double tolerance = run_tolerance(
        setup.header.model,
        {.activations = setup.header.activation_dtype, .kv = setup.header.kv_dtype}, longest);
    return compare(*reference, generation, requests, tolerance);
  }

  Status report(const Setup& setup, std::span<const GenerationRequest> requests,
                const Generation& generation, const std::optional<Comparison>& comparison) {
    const Metrics metrics = compute_metrics(generation.timeline);
    if (options_.json) {
      print_json(as_json(setup, requests, generation, metrics, comparison));
    } else {
      if (requests.size() > 1) print_texts(requests);
      print("\n" + setup.strategy.label + "\n" + report_metrics(metrics));
      if (comparison) print_comparison(*comparison);
    }
    if (!options_.trace_path) return {};
    return write_trace(generation.timeline, *options_.trace_path);
  }

  void print_texts(std::span<const GenerationRequest> requests) const {
    for (std::size_t i = 0; i < requests.size(); ++i) {
      print(fmt::format("--- request {} ({} prompt tokens)\n{}\n", i, requests[i].prompt.size(),
                        texts_[i].text()));
    }
  }

  static void print_comparison(const Comparison& comparison) {
    if (!comparison.agrees()) return;  // The error line says it.
    print(fmt::format(
        "\ncheck: agrees with a single device: {} tokens, logits within {:.1e} of their range "
        "(allowed {:.1e})\n",
        comparison.tokens_compared, comparison.max_logit_difference, comparison.tolerance));
  }

  [[nodiscard]] nlohmann::json as_json(const Setup& setup,
                                       std::span<const GenerationRequest> requests,
                                       const Generation& generation, const Metrics& metrics,
                                       const std::optional<Comparison>& comparison) const {
    auto outputs = nlohmann::json::array();
    for (std::size_t i = 0; i < requests.size(); ++i) {
      const GenerationOutput& output = generation.outputs[i];
      outputs.push_back({{"prompt_tokens", requests[i].prompt.size()},
                         {"tokens", output.tokens},
                         {"text", texts_[i].text()},
                         {"finish", to_string(output.finish)}});
    }
    nlohmann::json json = {{"model", setup.header.model.name},
                           {"strategy", setup.strategy.label},
                           {"devices", generation.timeline.devices},
                           {"cancelled", generation.cancelled},
                           {"requests", outputs},
                           {"planning",
                            {{"plans", generation.planning.plans},
                             {"lookups", generation.planning.lookups},
                             {"decode_share", generation.decode_planning_share()}}},
                           {"metrics", metrics_to_json(metrics)},
                           {"ranks", nullptr},
                           {"check", nullptr}};
    if (ranks_ != nullptr) json["ranks"] = ranks_to_json(*ranks_);
    if (comparison) json["check"] = comparison_to_json(*comparison);
    return json;
  }

  RunOptions options_;
  std::vector<TextOfRequest> texts_;
  Ranks* ranks_ = nullptr;  // Where there are several.
};

}  // namespace

std::unique_ptr<Command> make_run_command() { return std::make_unique<RunCommand>(); }

}  // namespace weir
