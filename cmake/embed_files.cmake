# Writes OUTPUT, a source that holds the text of every file in FILES (separated by "|"), in that order, as FUNCTION(): a span
# of TYPE, which HEADER declares as {file's name without its ending, text}. weir_embed_files() in weir.cmake runs it.

string(REPLACE "|" ";" FILES "${FILES}")
set(entries "")
foreach(file IN LISTS FILES)
  get_filename_component(name "${file}" NAME_WLE)
  file(READ "${file}" text)
  string(APPEND entries "    {\"${name}\", R\"weir_file(${text})weir_file\"},\n")
endforeach()
file(WRITE "${OUTPUT}" "#include \"${HEADER}\"

namespace weir {
namespace {

constexpr ${TYPE} kFiles[] = {
${entries}};

}  // namespace

std::span<const ${TYPE}> ${FUNCTION}() { return kFiles; }

}  // namespace weir
")
