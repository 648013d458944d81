#include "claims/verdict.h"

#include <gtest/gtest.h>

namespace weir {
namespace {

Evidence evidence(double claimed, double computed) {
  return {.claimed = {claimed, claimed}, .computed = computed};
}

TEST(Verdict, HoldsUpToATenthToEitherSideAndNotBeyond) {
  EXPECT_EQ(judge(evidence(110, 100)), Verdict::holds);
  EXPECT_EQ(judge(evidence(90, 100)), Verdict::holds);
  EXPECT_EQ(judge(evidence(111, 100)), Verdict::does_not_hold);
  EXPECT_EQ(judge(evidence(89, 100)), Verdict::does_not_hold);
}

TEST(Verdict, WhatIsComputedHoldsWhenItIsClaimed) {
  for (const double value : {1e-9, 0.0, 1.0, 45e-3, 7e12, -3.0})
    EXPECT_EQ(judge(evidence(value, value)), Verdict::holds) << value;
}

TEST(Verdict, SomethingOverNothingDoesNotHold) {
  EXPECT_EQ(judge(evidence(8, 0)), Verdict::does_not_hold);
  EXPECT_FALSE(ratio_of({8, 8}, 0));
}

TEST(Verdict, ARangeIsJudgedByItsNearestEnd) {
  EXPECT_EQ(ratio_of({0.85, 0.92}, 0.9), 1.0);
  EXPECT_DOUBLE_EQ(*ratio_of({0.85, 0.92}, 0.5), 1.7);
  EXPECT_EQ(judge({.claimed = {0.85, 0.92}, .computed = 0.80}), Verdict::holds);
  EXPECT_EQ(judge({.claimed = {0.85, 0.92}, .computed = 0.50}), Verdict::does_not_hold);
}

TEST(Verdict, TheRightDirectionSavesAFigureThatIsOff) {
  Evidence off = evidence(300, 100);
  EXPECT_EQ(judge(off), Verdict::does_not_hold);
  off.direction = true;
  EXPECT_EQ(judge(off), Verdict::direction_holds);
  off.direction = false;
  EXPECT_EQ(judge(off), Verdict::does_not_hold);
}

TEST(Verdict, AClaimOfWhoWinsCannotHoldWithTheWrongWinner) {
  Evidence close = evidence(1.02, 0.98);
  close.direction = false;
  EXPECT_EQ(judge(close), Verdict::holds) << "a plain figure may be near by chance";
  close.says_who_wins = true;
  EXPECT_EQ(judge(close), Verdict::does_not_hold);
}

TEST(Verdict, ABrokenBoundIsStrongerThanAnything) {
  Evidence near = evidence(100, 100);
  near.broken = {"memory"};
  EXPECT_EQ(judge(near), Verdict::impossible);
}

TEST(Verdict, OfTwoThatContradictEachOtherTheOneThatHoldsStays) {
  Evidence contradicted = evidence(100, 100);
  contradicted.contradictions = {"its own table: 200"};
  EXPECT_EQ(judge(contradicted), Verdict::holds);
  contradicted.computed = 200;
  contradicted.direction = true;
  EXPECT_EQ(judge(contradicted), Verdict::impossible);
}

TEST(Verdict, WithoutARecomputationOnlyContradictionsCount) {
  Evidence alone{.claimed = {72, 72}};
  EXPECT_EQ(judge(alone), Verdict::unchecked);
  alone.contradictions = {"its own sum: 70"};
  EXPECT_EQ(judge(alone), Verdict::impossible);
}

TEST(Verdict, FiguresWithinAHundredthAreEven) {
  EXPECT_EQ(order_of(1.005, 1), 0);
  EXPECT_EQ(order_of(1.02, 1), 1);
  EXPECT_EQ(order_of(0.9, 1), -1);
  EXPECT_EQ(order_of(0, 0), 0);
  EXPECT_EQ(order_of(-1, 1), -1);
}

}  // namespace
}  // namespace weir
