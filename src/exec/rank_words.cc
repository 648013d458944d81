#include "exec/rank_words.h"

#include <cstring>
#include <type_traits>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/check.h"
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

class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : left_(bytes) {}
  ~Reader() { CHECK(left_.empty(), "a message between ranks is read to its end"); }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  template <class T>
  T get() {
    T value{};
    std::memcpy(&value, next(sizeof(T)).data(), sizeof(T));
    return value;
  }
  template <class Items>
  void get_all(Items& items) {
    using T = typename Items::value_type;
    const auto count = static_cast<std::size_t>(get<std::uint64_t>());
    CHECK(count <= left_.size() / sizeof(T), "a message between ranks holds what it says");
    items.resize(count);
    const auto bytes = next(count * sizeof(T));
    if (count > 0) std::memcpy(items.data(), bytes.data(), bytes.size());
  }

 private:
  std::span<const std::byte> next(std::size_t size) {
    CHECK(size <= left_.size(), "a message between ranks holds what it says");
    const auto bytes = left_.first(size);
    left_ = left_.subspan(size);
    return bytes;
  }

  std::span<const std::byte> left_;
};

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
    word.record = in.get<bool>();
    in.get_all(word.lengths);
    in.get_all(word.sequences);
    for (auto count = in.get<std::uint64_t>(); count > 0; --count)
      in.get_all(word.tokens.emplace_back());
    in.get_all(word.rope_lengths);
  }
  void operator()(ForgetPlanWord& word) const { word.plan = in.get<std::uint64_t>(); }
  void operator()(ReleaseWord& word) const { word.sequence = in.get<SequenceId>(); }
  void operator()(HeldWord&) const {}
  void operator()(CloseWord&) const {}
};

// The alternative of that index, empty.
template <std::size_t i = 0>
RankWord word_of(std::size_t index) {
  if constexpr (i < std::variant_size_v<RankWord>) {
    return index == i ? RankWord(std::in_place_index<i>) : word_of<i + 1>(index);
  } else {
    CHECK(false, "a message between ranks is of a known kind");
  }
}

}  // namespace

std::vector<std::byte> pack(const RankWord& word) {
  Writer out;
  out.put(static_cast<std::uint8_t>(word.index()));
  std::visit(PutWord{out}, word);
  return out.take();
}

RankWord unpack_word(std::span<const std::byte> bytes) {
  Reader in(bytes);
  RankWord word = word_of(in.get<std::uint8_t>());
  std::visit(GetWord{in}, word);
  return word;
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

DeviceReport unpack_report(std::span<const std::byte> bytes) {
  Reader in(bytes);
  DeviceReport report;
  in.get_all(report.failure);
  for (auto count = in.get<std::uint64_t>(); count > 0; --count) {
    Record& record = report.records.emplace_back();
    record.task = in.get<TaskRecord>();
    in.get_all(record.partners);
  }
  in.get_all(report.logits);
  report.held = in.get<Executor::Held>();
  return report;
}

std::vector<std::uint8_t> plan_document(const Plan& plan) {
  return nlohmann::json::to_cbor(plan_to_json(plan));
}

Result<ValidPlan> read_plan_document(std::span<const std::uint8_t> document) {
  const auto json = nlohmann::json::from_cbor(document.begin(), document.end(), true, false);
  auto plan = plan_from_json(json, "the plan of rank 0");
  if (!plan) return tl::unexpected(plan.error());
  auto valid = validate(*std::move(plan));
  if (!valid) return invalid_input("the plan of rank 0: " + join_problems(valid.error()));
  return *std::move(valid);
}

}  // namespace weir
