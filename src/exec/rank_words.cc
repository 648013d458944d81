#include "exec/rank_words.h"

#include <cstring>
#include <optional>
#include <type_traits>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "plan/plan_json.h"

namespace weir {
namespace {

class Writer {
 public:
  template <class T>
  void put(const T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    const auto* first = reinterpret_cast<const std::byte*>(&value);
    bytes_.insert(bytes_.end(), first, first + sizeof(T));
  }
  // A vector or string of what can be copied bytewise.
  template <class Items>
  void put_all(const Items& items) {
    using T = typename Items::value_type;
    static_assert(std::is_trivially_copyable_v<T>);
    put(std::uint64_t{items.size()});
    const auto* first = reinterpret_cast<const std::byte*>(items.data());
    bytes_.insert(bytes_.end(), first, first + items.size() * sizeof(T));
  }
  [[nodiscard]] std::vector<std::byte> take() { return std::move(bytes_); }

 private:
  std::vector<std::byte> bytes_;
};

// Reads what a Writer has put. Where something else has come, all that is got is empty from there
// on, and it is not `whole`.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : left_(bytes) {}

  template <class T>
  T get() {
    static_assert(std::is_trivially_copyable_v<T> && !std::is_same_v<T, bool>);
    T value{};
    const auto bytes = next(sizeof(T));
    if (!bytes.empty()) std::memcpy(&value, bytes.data(), sizeof(T));
    return value;
  }
  bool get_bool() {
    const auto value = get<std::uint8_t>();
    if (value > 1) fail();
    return value == 1;
  }
  template <class Items>
  void get_all(Items& items) {
    const std::size_t count = get_count(sizeof(typename Items::value_type));
    items.resize(count);
    const auto bytes = next(count * sizeof(typename Items::value_type));
    if (!bytes.empty()) std::memcpy(items.data(), bytes.data(), bytes.size());
  }
  // Of things that take so many bytes at least, each.
  std::size_t get_count(std::size_t size) {
    const auto count = get<std::uint64_t>();
    if (count <= left_.size() / size) return static_cast<std::size_t>(count);
    fail();
    return 0;
  }
  [[nodiscard]] bool whole() const { return !failed_ && left_.empty(); }

 private:
  void fail() {
    failed_ = true;
    left_ = {};
  }
  std::span<const std::byte> next(std::size_t size) {
    if (size > left_.size()) {
      fail();
      return {};
    }
    const auto bytes = left_.first(size);
    left_ = left_.subspan(size);
    return bytes;
  }

  std::span<const std::byte> left_;
  bool failed_ = false;
};

// Of a vector, beside what is in it.
constexpr std::size_t kLeastOfVector = sizeof(std::uint64_t);

tl::unexpected<Error> not_understood(std::size_t size) {
  return run_failed(fmt::format(
      "found a message of {} bytes that is none, allowed what ranks of one build say", size));
}

struct PutWord {
  Writer& out;

  void operator()(const PrepareWord& word) const {
    out.put(word.plan);
    out.put_all(word.document);
  }
  void operator()(const StepWord& word) const {
    out.put(word.plan);
    out.put(word.step_index);
    out.put(word.record);
    out.put_all(word.lengths);
    out.put_all(word.sequences);
    out.put(std::uint64_t{word.tokens.size()});
    for (const auto& tokens : word.tokens) out.put_all(tokens);
    out.put_all(word.rope_lengths);
  }
  void operator()(const ForgetPlanWord& word) const { out.put(word.plan); }
  void operator()(const ReleaseWord& word) const { out.put(word.sequence); }
  void operator()(const HeldWord&) const {}
  void operator()(const CloseWord&) const {}
};

struct GetWord {
  Reader& in;

  void operator()(PrepareWord& word) const {
    word.plan = in.get<std::uint64_t>();
    in.get_all(word.document);
  }
  void operator()(StepWord& word) const {
    word.plan = in.get<std::uint64_t>();
    word.step_index = in.get<std::int32_t>();
    word.record = in.get_bool();
    in.get_all(word.lengths);
    in.get_all(word.sequences);
    word.tokens.resize(in.get_count(kLeastOfVector));
    for (auto& tokens : word.tokens) in.get_all(tokens);
    in.get_all(word.rope_lengths);
  }
  void operator()(ForgetPlanWord& word) const { word.plan = in.get<std::uint64_t>(); }
  void operator()(ReleaseWord& word) const { word.sequence = in.get<SequenceId>(); }
  void operator()(HeldWord&) const {}
  void operator()(CloseWord&) const {}
};

// The alternative of that index, empty; nullopt where there is none.
template <std::size_t i = 0>
std::optional<RankWord> word_of(std::size_t index) {
  if constexpr (i < std::variant_size_v<RankWord>) {
    return index == i ? RankWord(std::in_place_index<i>) : word_of<i + 1>(index);
  } else {
    return std::nullopt;
  }
}

}  // namespace

std::vector<std::byte> pack(const RankWord& word) {
  Writer out;
  out.put(static_cast<std::uint8_t>(word.index()));
  std::visit(PutWord{out}, word);
  return out.take();
}

Result<RankWord> unpack_word(std::span<const std::byte> bytes) {
  Reader in(bytes);
  auto word = word_of(in.get<std::uint8_t>());
  if (word) std::visit(GetWord{in}, *word);
  if (!word || !in.whole()) return not_understood(bytes.size());
  return *std::move(word);
}

std::vector<std::byte> pack(const DeviceReport& report) {
  Writer out;
  out.put_all(report.failure);
  out.put(std::uint64_t{report.records.size()});
  for (const Record& record : report.records) {
    out.put(record.task);
    out.put_all(record.partners);
  }
  out.put_all(report.logits);
  out.put(report.held);
  return out.take();
}

Result<DeviceReport> unpack_report(std::span<const std::byte> bytes) {
  Reader in(bytes);
  DeviceReport report;
  in.get_all(report.failure);
  report.records.resize(in.get_count(sizeof(TaskRecord) + kLeastOfVector));
  for (Record& record : report.records) {
    record.task = in.get<TaskRecord>();
    in.get_all(record.partners);
  }
  in.get_all(report.logits);
  report.held = in.get<Executor::Held>();
  if (!in.whole()) return not_understood(bytes.size());
  return report;
}

Result<ValidPlan> read_plan_document(std::string_view document) {
  constexpr std::string_view kSource = "the plan of rank 0";
  const auto json = parse_json(document, kSource);
  if (!json) return tl::unexpected(json.error());
  auto plan = plan_from_json(*json, kSource);
  if (!plan) return tl::unexpected(plan.error());
  auto valid = validate(*std::move(plan));
  if (!valid) return invalid_input(fmt::format("{}: {}", kSource, join_problems(valid.error())));
  return *std::move(valid);
}

}  // namespace weir
