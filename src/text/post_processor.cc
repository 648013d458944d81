#include "text/post_processor.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "text/bpe.h"
#include "text/normalizer.h"

namespace weir {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxTemplatePieces = 64;

// The ids that a template's special token stands for.
std::vector<std::int64_t> special_ids(ObjectReader& special_tokens, const std::string& name) {
  if (!special_tokens.has(name)) {
    special_tokens.problem(name, "missing, though the template uses it");
    return {};
  }
  ObjectReader token = special_tokens.object(name);
  token.ignore("id");
  token.ignore("tokens");
  std::vector<std::int64_t> ids = token.integers("ids", {.min = 0, .max = kMaxTokenId});
  token.refuse_unknown_keys();
  return ids;
}

// One entry of the template: {"Sequence": {"id": "A"}} or {"SpecialToken": {"id": name}}.
void read_piece(ObjectReader& piece, ObjectReader& special_tokens, bool& has_text,
                PostProcessor& result) {
  const bool is_text = piece.has("Sequence");
  ObjectReader content = piece.object(is_text ? "Sequence" : "SpecialToken");
  piece.refuse_unknown_keys();
  const std::string id = content.string("id");
  content.ignore("type_id");  // For models that tell sentences apart.
  content.refuse_unknown_keys();
  if (!is_text) {
    auto& ids = has_text ? result.after : result.before;
    const std::vector<std::int64_t> added = special_ids(special_tokens, id);
    ids.insert(ids.end(), added.begin(), added.end());
    return;
  }
  if (has_text || id != "A") content.problem("id", "found another text, allowed only A, once");
  has_text = true;
}

void read_template(ObjectReader& step, PostProcessor& result) {
  step.ignore("pair");  // For two texts at once.
  ObjectReader special_tokens = step.object("special_tokens");
  bool has_text = false;
  std::vector<ObjectReader> pieces = step.objects("single");
  if (pieces.size() > kMaxTemplatePieces) {
    step.problem("single", fmt::format("found {} entries, allowed at most {}", pieces.size(),
                                       kMaxTemplatePieces));
    return;
  }
  for (ObjectReader& piece : pieces) read_piece(piece, special_tokens, has_text, result);
  if (!has_text) step.problem("single", "found no text, allowed {\"Sequence\": {\"id\": \"A\"}}");
}

}  // namespace

PostProcessor PostProcessor::from_json(const json& value, const std::string& path,
                                       std::vector<std::string>& problems) {
  PostProcessor result;
  bool has_template = false;
  for (const NamedStep& named : flatten_steps(value, path, "processors", problems)) {
    ObjectReader step(*named.value, named.path, problems);
    step.ignore("type");
    if (named.type == "ByteLevel") {
      for (const char* const key : {"add_prefix_space", "trim_offsets", "use_regex"})
        step.ignore(key);
    } else if (named.type == "TemplateProcessing" && !has_template) {
      read_template(step, result);
      has_template = true;
    } else {
      step.problem("type", fmt::format("found {}, allowed one of: ByteLevel, one "
                                       "TemplateProcessing, Sequence",
                                       shown(named.type)));
      continue;
    }
    step.refuse_unknown_keys();
  }
  return result;
}

}  // namespace weir
