// The bundled notes: that all tables of the five are there, with figures as the notes have them,
// and that their contradictions are found. Small batches, so that the whole takes seconds.

#include <map>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "claims/note.h"
#include "claims/recomputation.h"

namespace weir {
namespace {

const std::vector<Note>& notes() {
  static const std::vector<Note> loaded = [] {
    auto result = load_bundled_notes();
    EXPECT_TRUE(result) << result.error().message;
    return result.value_or(std::vector<Note>());
  }();
  return loaded;
}

const Note& note(std::string_view name) {
  for (const Note& one : notes()) {
    if (one.name == name) return one;
  }
  ADD_FAILURE() << name;
  return notes().front();
}

// The note's figure as it writes it.
double claimed(std::string_view name, std::string_view claim, std::string_view row = "") {
  const Claim* found = find_claim(note(name), claim, row);
  EXPECT_NE(found, nullptr) << name << " " << claim << " " << row;
  return found == nullptr ? -1 : found->claimed.low / found->unit->scale;
}

TEST(BundledNotes, CoverEveryTableOfTheFiveNotes) {
  using Tables = std::map<std::string, int>;
  const auto tables_of = [](const Note& one) {
    Tables tables;
    for (const Claim& claim : one.claims) ++tables[claim.name.substr(0, claim.name.find('.'))];
    return tables;
  };
  ASSERT_EQ(notes().size(), 5U);
  EXPECT_EQ(tables_of(note("fa-pool-1")), (Tables{{"model", 5},
                                                  {"tpot", 28},
                                                  {"tps", 28},
                                                  {"utilisation", 6},
                                                  {"memory", 15},
                                                  {"communication", 2},
                                                  {"efficiency", 4},
                                                  {"optimal", 3},
                                                  {"breakdown", 11},
                                                  {"equivalent", 12},
                                                  {"memory_efficiency", 8},
                                                  {"energy", 6},
                                                  {"validation", 8}}));
  EXPECT_EQ(tables_of(note("fa-pool-2")), (Tables{{"abstract", 2},
                                                  {"layers", 10},
                                                  {"baseline", 5},
                                                  {"assignment", 32},
                                                  {"hardware", 3},
                                                  {"tpot", 57},
                                                  {"tps", 57},
                                                  {"scaling", 5},
                                                  {"efficiency", 7},
                                                  {"static", 8},
                                                  {"memory", 16},
                                                  {"breakdown", 11},
                                                  {"curve", 6}}));
  EXPECT_EQ(tables_of(note("fa-pool-method")), (Tables{{"model", 1},
                                                       {"deployment", 7},
                                                       {"dimensions", 7},
                                                       {"reduction", 2},
                                                       {"balance", 1},
                                                       {"scaling", 12}}));
  EXPECT_EQ(tables_of(note("two-level")),
            (Tables{{"setup", 6}, {"results", 4}, {"analysis", 4}, {"memory", 2}}));
  EXPECT_EQ(tables_of(note("cache-fit")),
            (Tables{{"model", 3}, {"performance", 8}, {"footprint", 3}}));
}

TEST(BundledNotes, HaveTheFiguresOfTheNotes) {
  EXPECT_EQ(claimed("fa-pool-1", "tpot.baseline", "512"), 45);
  EXPECT_DOUBLE_EQ(claimed("fa-pool-1", "tpot.fa_pool", "32768"), 1080);
  EXPECT_EQ(claimed("fa-pool-1", "tps.improvement", "8192"), 2.5);
  EXPECT_EQ(claimed("fa-pool-1", "memory_efficiency.fa_pool_sequence"), 360);
  EXPECT_DOUBLE_EQ(claimed("fa-pool-2", "tpot.baseline", "40960"), 3800);
  EXPECT_EQ(claimed("fa-pool-2", "tps.fa_pool", "14336"), 100.3);
  EXPECT_EQ(claimed("fa-pool-2", "assignment.pool", "24576"), 22);
  EXPECT_EQ(claimed("fa-pool-2", "memory.at_8192"), 1160);
  EXPECT_EQ(claimed("fa-pool-method", "scaling.pool", "2048"), 2);
  EXPECT_EQ(claimed("two-level", "results.proposed_tps"), 1580000);
  EXPECT_DOUBLE_EQ(claimed("cache-fit", "performance.proposed_tpot"), 0.065);
}

TEST(BundledNotes, StateEveryAssumptionThatTheyMake) {
  for (const Note& one : notes()) {
    for (const char* name :
         {"batch_size", "output_len", "tpot", "tpot_tokens", "tps_tokens", "vocab_size", "ffn",
          "dtype", "cluster", "microbatches", "unstated_len"}) {
      EXPECT_TRUE(one.assumptions.contains(name)) << one.name << " " << name;
    }
    for (const auto& [name, stated] : one.assumptions) EXPECT_FALSE(stated.because.empty()) << name;
  }
}

class JudgedNotes : public testing::Test {
 protected:
  // Two sequences at a time: what is judged below does not depend on it.
  static void SetUpTestSuite() {
    RunCache runs;
    for (const Note& one : notes()) {
      auto findings = recompute(notes(), one, {{"batch_size", "2"}}, runs);
      ASSERT_TRUE(findings) << findings.error().message;
      for (Finding& finding : findings->findings)
        findings_.emplace(one.name + ":" + finding.claim->id(), std::move(finding));
    }
  }
  static const Finding& finding(const std::string& id) {
    const auto found = findings_.find(id);
    EXPECT_NE(found, findings_.end()) << id;
    return found == findings_.end() ? findings_.begin()->second : found->second;
  }
  static void expect_impossible(const std::string& id, std::string_view why) {
    const Finding& one = finding(id);
    EXPECT_EQ(one.verdict, Verdict::impossible) << id;
    bool said = false;
    for (const std::string& reason : one.reasons) said |= reason.find(why) != std::string::npos;
    EXPECT_TRUE(said) << id << ": " << why;
  }

  static inline std::map<std::string, Finding> findings_;
};

TEST_F(JudgedNotes, CountParametersByArithmetic) {
  EXPECT_EQ(finding("fa-pool-1:model.parameters").verdict, Verdict::does_not_hold);
  EXPECT_EQ(*finding("fa-pool-1:model.parameters").computed, 1335922688);
  expect_impossible("fa-pool-2:layers.total", "the sum of its own parts: 5.07 B");
  for (const char* part : {"qkv", "attention_output", "attention", "ffn_up", "ffn_down", "ffn"})
    EXPECT_EQ(finding(std::string("fa-pool-2:layers.") + part).verdict, Verdict::holds) << part;
  EXPECT_EQ(finding("cache-fit:model.parameters").verdict, Verdict::does_not_hold);
}

TEST_F(JudgedNotes, FindTablesThatContradictOneAnother) {
  expect_impossible("fa-pool-1:tpot.pool_gpus@2048",
                    "the third note's rule, threshold 4096: 0 GPUs");
  expect_impossible("fa-pool-1:tpot.pool_gpus@8192",
                    "the second note's assignment matrix: 10 GPUs");
  expect_impossible("fa-pool-2:assignment.pool@8192", "the first note's tables: 16 GPUs");
  expect_impossible("fa-pool-2:memory.at_8192", "16 x 45 GB: 1240 GB");
  expect_impossible("fa-pool-2:memory.at_16384", "32 x 45 GB: 1960 GB");
  expect_impossible("fa-pool-1:memory_efficiency.fa_pool_total", "8 x 65 + 16 x 45: 1240 GB");
  expect_impossible("fa-pool-2:static.fa_pool", "its own TPOT table: 204 ms");
  expect_impossible("fa-pool-2:breakdown.baseline", "its own TPOT table: 782 ms");
  expect_impossible("fa-pool-2:curve.improvement_40k", "its own TPOT table: 2.47x");
  expect_impossible("fa-pool-method:dimensions.kv_gpu", "its own K and V tensors");
  expect_impossible("fa-pool-method:scaling.pool@2048", "its own rule above the threshold");
}

TEST_F(JudgedNotes, FindThroughputThatItsOwnLatencyRulesOut) {
  expect_impossible("fa-pool-1:tps.fa_pool@8192", "TPS x TPOT");
  expect_impossible("fa-pool-2:tps.fa_pool@512", "TPS x TPOT");
}

TEST_F(JudgedNotes, FindThatACacheHoldsNoLayer) {
  expect_impossible("cache-fit:footprint.layers_per_partition", "at most 0 layers");
  EXPECT_EQ(*finding("cache-fit:footprint.layers_per_partition").computed, 0);
}

TEST_F(JudgedNotes, KeepWhatIsRight) {
  for (const char* id :
       {"fa-pool-1:energy.baseline_peak", "fa-pool-1:energy.fa_pool_peak",
        "fa-pool-1:energy.cost_ratio", "fa-pool-2:baseline.columns", "fa-pool-2:hardware.nvlink",
        "fa-pool-method:dimensions.block", "fa-pool-method:dimensions.kv_sequence",
        "fa-pool-method:scaling.pool@16384", "two-level:setup.embedding",
        "two-level:memory.factor"})
    EXPECT_EQ(finding(id).verdict, Verdict::holds) << id;
}

TEST_F(JudgedNotes, GiveEveryFigureThatDoesNotHoldAReasonOrAComputedValue) {
  for (const auto& [id, one] : findings_) {
    EXPECT_TRUE(one.computed || !one.reasons.empty()) << id;
    EXPECT_FALSE(one.verdict == Verdict::impossible && one.reasons.empty()) << id;
  }
}

}  // namespace
}  // namespace weir
