#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "app/command.h"
#include "app/demo_text.h"
#include "app/flags.h"
#include "app/interrupt.h"
#include "app/output.h"
#include "app/setup.h"
#include "base/temporary_folder.h"
#include "checkpoint/recall.h"
#include "engine/check.h"
#include "report/comparison.h"
#include "report/trace.h"
#include "result/metrics.h"
#include "text/tokenizer.h"

namespace weir {
namespace {

constexpr std::int64_t kPrefillChunk = 1024;
// The other documents have a quarter and a sixteenth of it.
constexpr std::int64_t kLongestPromptTokens = 16384;
constexpr std::int64_t kFewestPromptTokens = 1024;
// Three values and the end.
constexpr std::int64_t kMostAnswerTokens = kValuesPerRecallKey + 1;

struct DemoStrategy {
  std::string_view name;
  OptionValues values;
};
const std::vector<DemoStrategy>& demo_strategies() {
  static const std::vector<DemoStrategy> kStrategies = {
      {.name = "single", .values = {}},
      {.name = "tp_pp", .values = {{"tp", "2"}}},
      {.name = "tp_pp", .values = {{"tp", "1"}, {"pp", "2"}}},
      {.name = "attention_pool", .values = {{"tp", "1"}, {"pool", "4"}}},
      {.name = "attention_pool",
       .values = {{"tp", "1"}, {"pool", "4"}, {"split", "balanced_query_blocks"}}},
      {.name = "two_level", .values = {{"head_groups", "2"}, {"dim_slices", "2"}}},
      {.name = "cache_fit", .values = {{"devices", "2"}, {"capacity_kib", "12288"}}},
      {.name = "context_parallel", .values = {{"cp", "2"}}},
      {.name = "context_parallel", .values = {{"cp", "2"}, {"exchange", "all_to_all"}}},
  };
  return kStrategies;
}

// What is asked, and what must come out.
struct Questions {
  std::vector<RecallDocument> documents;
  std::vector<GenerationRequest> requests;
};

// Longest first; what is asked at each length is another key.
Result<Questions> make_questions(const ModelSpec& model, const Tokenizer& tokenizer,
                                 std::int64_t longest, std::uint64_t seed) {
  Questions questions;
  for (const std::int64_t length : {longest, longest / 4, longest / 16}) {
    auto document = make_recall_document(demo_text(), {.min_tokens = length, .seed = seed++});
    if (!document) return tl::unexpected(document.error());
    auto tokens = tokenizer.encode(document->prompt);
    if (!tokens) return tl::unexpected(tokens.error());
    questions.requests.push_back({.prompt = *std::move(tokens),
                                  .max_new_tokens = kMostAnswerTokens,
                                  .stop_ids = model.eos_token_ids});
    questions.documents.push_back(*std::move(document));
  }
  return questions;
}

class DemoCommand final : public Command {
 public:
  void declare(CLI::App& app) override {
    add_integer(app,
                {.name = "--tokens",
                 .help = fmt::format("length of the longest document; the others have a quarter "
                                     "and a sixteenth of it (default {})",
                                     kLongestPromptTokens)},
                {.min = kFewestPromptTokens, .max = kMaxRecallDocumentTokens}, tokens_);
    add_text(app, {.name = "--keep", .help = "write the model to this folder and leave it there"},
             keep_);
    add_text(app,
             {.name = "--trace",
              .help = "where the trace of the last run goes (default ./weir-demo-trace.json)"},
             trace_path_);
    add_seed(app, seed_);
    add_switch(app, {.name = "--json", .help = "machine-readable on stdout, nothing else there"},
               json_);
    add_switch(app, {.name = "--progress", .help = "progress on stderr even if it is no terminal"},
               progress_);
    add_examples(app,
                 "  weir demo\n  weir demo --tokens 65536\n  weir demo --keep /tmp/recall --trace "
                 "/tmp/demo.json");
  }

  Result<ExitCode> run() override {
    if (auto checked = check_output_path("--trace", trace_path_); !checked)
      return tl::unexpected(checked.error());
    const auto temporary = TemporaryFolder::make("demo");
    if (!temporary) return tl::unexpected(temporary.error());
    const std::string folder = keep_.value_or(temporary->path() + "/recall");
    if (auto written = write_recall_model(folder, DType::f32, {.seed = seed_}); !written)
      return tl::unexpected(written.error());
    const auto model = load_model_spec(folder);
    if (!model) return tl::unexpected(model.error());
    const auto checkpoint = Checkpoint::open(folder, *model);
    if (!checkpoint) return tl::unexpected(checkpoint.error());
    const auto tokenizer = Tokenizer::load(folder);
    if (!tokenizer) return tl::unexpected(tokenizer.error());
    const auto questions = make_questions(*model, *tokenizer, tokens_, seed_);
    if (!questions) return tl::unexpected(questions.error());

    introduce(*questions);
    for (const DemoStrategy& strategy : demo_strategies()) {
      if (auto done = run_one(strategy, *checkpoint, *model, *tokenizer, *questions); !done)
        return tl::unexpected(done.error());
      if (interrupted()) break;
    }
    return finish();
  }

 private:
  void introduce(const Questions& questions) const {
    if (json_) return;
    std::string lengths;
    for (const RecallDocument& document : questions.documents)
      lengths += fmt::format("{}{}", lengths.empty() ? "" : ", ", document.num_tokens);
    print(fmt::format(
        "A model that looks up keys hidden in a text reads {} documents of {} tokens in one\n"
        "batch. The answers are known; every way of splitting the model must find them, with the\n"
        "logits of a single device.\n",
        questions.documents.size(), lengths));
  }

  Status run_one(const DemoStrategy& strategy, const Checkpoint& checkpoint, const ModelSpec& model,
                 const Tokenizer& tokenizer, const Questions& questions) {
    const auto setup = set_up(
        model, {.strategy = {.name = std::string(strategy.name), .values = strategy.values}});
    if (!setup) return tl::unexpected(setup.error());
    ProgressLine line(progress_ ? ProgressLine::Shown::always : ProgressLine::Shown::on_terminal);
    auto generation =
        generate(checkpoint, *setup, questions.requests,
                 {.prefill_chunk = kPrefillChunk,
                  .keep_logits = true,
                  .cancel = &interrupted(),
                  .on_progress = [&](const GenerationProgress& progress) {
                    line.show(fmt::format("{}: prompt {}/{} tokens, {} generated",
                                          setup->strategy.label, progress.prompt_done,
                                          progress.prompt_tokens, progress.output_tokens));
                  }});
    line.clear();
    if (!generation) return tl::unexpected(generation.error());

    if (!json_) print("\n" + setup->strategy.label + "\n");
    const bool right = check_answers(tokenizer, questions, *generation);
    const bool agrees = generation->cancelled || check_logits(model, questions, *generation);
    add_summary(setup->strategy.label, *generation, right && agrees);
    last_timeline_ = std::move(generation->timeline);
    if (runs_.size() == 1) reference_ = *std::move(generation);
    return {};
  }

  bool check_answers(const Tokenizer& tokenizer, const Questions& questions,
                     const Generation& generation) {
    auto answers = nlohmann::json::array();
    bool all_right = true;
    for (std::size_t i = 0; i < questions.documents.size(); ++i) {
      const RecallDocument& document = questions.documents[i];
      const std::string answer =
          tokenizer.decode(generation.outputs[i].tokens, {.skip_special_tokens = true});
      const bool right = answer == document.answer;
      all_right = all_right && right;
      answers.push_back({{"prompt_tokens", document.num_tokens},
                         {"answer", answer},
                         {"expected", document.answer},
                         {"right", right}});
      if (json_) continue;
      print(fmt::format("  {:>6} tokens: {} {}\n", document.num_tokens, answer,
                        right ? "right" : "WRONG, expected " + document.answer));
    }
    answers_.push_back(std::move(answers));
    return all_right;
  }

  // Against the first run; that one has nothing to be compared with.
  bool check_logits(const ModelSpec& model, const Questions& questions,
                    const Generation& generation) {
    if (runs_.empty()) {
      comparisons_.emplace_back();
      return true;
    }
    const std::int64_t longest = tokens_ + kMostAnswerTokens;
    const Comparison comparison =
        compare(reference_, generation, questions.requests, run_tolerance(model, {}, longest));
    if (!json_) {
      print(comparison.agrees()
                ? fmt::format("  logits equal those of single within {:.1e} of their range "
                              "(allowed {:.1e})\n",
                              comparison.max_logit_difference, comparison.tolerance)
                : fmt::format("  logits DIFFER from single: {}\n", *comparison.first_problem));
    }
    comparisons_.emplace_back(comparison);
    return comparison.agrees();
  }

  void add_summary(const std::string& label, const Generation& generation, bool matches) {
    std::int64_t peak = 0;
    for (const DeviceMemory& memory : generation.memory) peak = std::max(peak, memory.total());
    runs_.push_back({.name = label,
                     .metrics = compute_metrics(generation.timeline),
                     .bytes_moved = {},
                     .peak_memory = Bytes{peak},
                     .answers_match = matches});
  }

  Result<ExitCode> finish() {
    if (auto written = write_trace(last_timeline_, trace_path_); !written)
      return tl::unexpected(written.error());
    if (json_) {
      print_json(as_json());
    } else {
      print(fmt::format("\n{}\nA trace of the last run: {} (open it in https://ui.perfetto.dev)\n",
                        render(comparison_of(runs_)), trace_path_));
    }
    if (interrupted()) return ExitCode::interrupted;
    for (const RunSummary& run : runs_) {
      if (!run.answers_match.value_or(false)) {
        return run_failed(
            fmt::format("demo: found wrong answers or logits under {}, allowed none", run.name));
      }
    }
    return ExitCode::success;
  }

  [[nodiscard]] nlohmann::json as_json() const {
    auto runs = nlohmann::json::array();
    for (std::size_t i = 0; i < runs_.size(); ++i) {
      nlohmann::json run = {{"strategy", runs_[i].name},
                            {"answers", answers_[i]},
                            {"matches", *runs_[i].answers_match},
                            {"metrics", metrics_to_json(runs_[i].metrics)},
                            {"max_logit_difference", nullptr}};
      if (i < comparisons_.size() && comparisons_[i])
        run["max_logit_difference"] = comparisons_[i]->max_logit_difference;
      runs.push_back(std::move(run));
    }
    return {{"runs", runs}, {"trace", trace_path_}};
  }

  std::int64_t tokens_ = kLongestPromptTokens;
  std::optional<std::string> keep_;
  std::string trace_path_ = "./weir-demo-trace.json";
  std::uint64_t seed_ = 0;
  bool json_ = false;
  bool progress_ = false;

  Generation reference_;
  Timeline last_timeline_;
  std::vector<RunSummary> runs_;
  std::vector<nlohmann::json> answers_;
  std::vector<std::optional<Comparison>> comparisons_;
};

}  // namespace

std::unique_ptr<Command> make_demo_command() { return std::make_unique<DemoCommand>(); }

}  // namespace weir
