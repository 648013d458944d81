"""Writes golden/NAME/{config.json,model.safetensors,golden.json}: tiny models and what transformers makes of them.

Each model is run by transformers in f32 on the CPU, on weights that the stored dtype holds exactly. For every prompt
length golden.json has the logits of the last position, for the prompt of 127 tokens also those of some positions before
it, and for two prompts the tokens that greedy decoding appends.

The prompt of length n is n draws from a linear congruential generator (the constants of the C standard's example) that
is seeded with n:  state = (1103515245 * state + 12345) mod 2^31,  token = floor(state / 2^16) mod vocab_size.

Run with transformers 5 and torch:  python tests/reference/make_reference_goldens.py
"""

import json
import pathlib

import safetensors.torch
import torch
import transformers

LENGTHS = [1, 2, 127, 1000, 4097]
MIDDLE_LENGTH, MIDDLE_POSITIONS = 127, [0, 31, 63, 64, 100]
GREEDY_LENGTHS, GREEDY_TOKENS = [127, 1000], 8
# The best token leads the second by this part of the logits' range, so that rounding cannot change the choice.
GREEDY_MARGIN = 2e-3

TINY = dict(
    hidden_size=32,
    intermediate_size=40,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=96,
    max_position_embeddings=8192,
    rms_norm_eps=0.01,  # Large, so that leaving it out shows.
    tie_word_embeddings=False,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=None,
)
LLAMA, MISTRAL, QWEN2, QWEN3, PHI3 = (
    transformers.LlamaConfig,
    transformers.MistralConfig,
    transformers.Qwen2Config,
    transformers.Qwen3Config,
    transformers.Phi3Config,
)


def rope(rope_type, **parameters):
    return dict(rope_parameters=dict(rope_type=rope_type, rope_theta=10000.0, **parameters))


LLAMA3_ROPE = rope(
    "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=256
)
CASES = [
    # Name, config class, its options, stored dtype. Five heads on two devices are 3 and 2.
    ("llama2", LLAMA, dict(hidden_size=30, num_attention_heads=5, num_key_value_heads=5), torch.float32),
    # Two devices share the middle one of three KV heads.
    (
        "llama3",
        LLAMA,
        dict(hidden_size=36, intermediate_size=32, num_attention_heads=6, num_key_value_heads=3, head_dim=8, **LLAMA3_ROPE),
        torch.float32,
    ),
    ("llama_linear", LLAMA, rope("linear", factor=4.0), torch.float32),
    # Beyond 2048 positions, that is for the longest prompt only, the frequencies depend on the length.
    ("llama_dynamic", LLAMA, dict(max_position_embeddings=2048, **rope("dynamic", factor=4.0)), torch.float32),
    ("llama_yarn", LLAMA, rope("yarn", factor=16.0, original_max_position_embeddings=512), torch.float32),
    (
        "llama_biases",
        LLAMA,
        dict(attention_bias=True, mlp_bias=True, hidden_act="gelu_pytorch_tanh"),
        torch.float32,
    ),
    ("llama_gelu", LLAMA, dict(hidden_act="gelu", tie_word_embeddings=True), torch.float32),
    ("llama_bf16", LLAMA, dict(LLAMA3_ROPE, hidden_size=48, intermediate_size=72), torch.bfloat16),
    ("llama_f16", LLAMA, dict(hidden_size=48, intermediate_size=72), torch.float16),
    ("mistral", MISTRAL, dict(sliding_window=600), torch.float32),
    ("mistral_narrow", MISTRAL, dict(sliding_window=33), torch.float32),
    ("qwen2", QWEN2, dict(tie_word_embeddings=True), torch.float32),
    ("qwen3", QWEN3, dict(num_attention_heads=3, num_key_value_heads=1, head_dim=16), torch.float32),
    ("phi3", PHI3, dict(partial_rotary_factor=0.5), torch.float32),
    # Short factors up to 512 positions, long ones beyond.
    (
        "phi3_longrope",
        PHI3,
        dict(
            original_max_position_embeddings=512,
            rope_parameters=dict(
                rope_type="longrope",
                rope_theta=10000.0,
                short_factor=[1.0, 1.1, 1.25, 1.5],
                long_factor=[1.0, 2.0, 5.5, 16.0],
                original_max_position_embeddings=512,
            ),
        ),
        torch.float32,
    ),
]


def prompt(length, vocab_size):
    state, tokens = length, []
    for _ in range(length):
        state = (1103515245 * state + 12345) % 2**31
        tokens.append((state >> 16) % vocab_size)
    return tokens


def rounded(row):
    return [float(f"{value:.7g}") for value in row.tolist()]


def make_model(config_class, options, dtype, seed):
    torch.manual_seed(seed)
    config = config_class(**{**TINY, **options})
    config.architectures = [config_class.__name__.replace("Config", "ForCausalLM")]
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                parameter.normal_(1.0, 0.2)
            elif name.endswith("bias"):
                parameter.normal_(0.0, 0.5)
            elif name.endswith(("embed_tokens.weight", "lm_head.weight")):
                parameter.normal_(0.0, 0.5)
            else:
                parameter.normal_(0.0, 1.5 / parameter.shape[1] ** 0.5)
            parameter.copy_(parameter.to(dtype))
    return model


@torch.no_grad()
def logits_of(model, tokens):
    return model(torch.tensor([tokens]), use_cache=False).logits[0]


def greedy(model, tokens):
    """The tokens, and by how much of the range each led."""
    tokens, margins = list(tokens), []
    for _ in range(GREEDY_TOKENS):
        row = logits_of(model, tokens)[-1]
        best = row.topk(2)
        margins.append(float((best.values[0] - best.values[1]) / (row.max() - row.min())))
        tokens.append(int(best.indices[0]))
    return tokens[-GREEDY_TOKENS:], min(margins)


def answers(model):
    vocab_size = model.config.vocab_size
    golden = dict(last=[], middle=[], greedy=[])
    for length in LENGTHS:
        logits = logits_of(model, prompt(length, vocab_size))
        golden["last"].append(dict(length=length, logits=rounded(logits[-1])))
        if length == MIDDLE_LENGTH:
            for position in MIDDLE_POSITIONS:
                golden["middle"].append(dict(length=length, position=position, logits=rounded(logits[position])))
    for length in GREEDY_LENGTHS:
        tokens, margin = greedy(model, prompt(length, vocab_size))
        if margin < GREEDY_MARGIN:
            return None
        golden["greedy"].append(dict(length=length, tokens=tokens))
    return golden


def write(folder, model, golden, dtype):
    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads(model.config.to_json_string())
    config["dtype"] = str(dtype).removeprefix("torch.")
    config.pop("transformers_version", None)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    tied = model.config.tie_word_embeddings
    tensors = {
        name: tensor.to(dtype).contiguous()
        for name, tensor in model.state_dict().items()
        if not (tied and name == "lm_head.weight")
    }
    safetensors.torch.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    rows = ",\n".join(
        f' "{key}": [\n' + ",\n".join("  " + json.dumps(entry) for entry in golden[key]) + "\n ]" for key in golden
    )
    (folder / "golden.json").write_text("{\n" + rows + "\n}\n")


def main():
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    root = pathlib.Path(__file__).parent / "golden"
    for name, config_class, options, dtype in CASES:
        # The first seed under which greedy decoding is clear.
        for seed in range(100):
            model = make_model(config_class, options, dtype, seed)
            golden = answers(model)
            if golden is not None:
                break
        else:
            raise SystemExit(f"{name}: no seed gives clear greedy tokens")
        write(root / name, model, golden, dtype)


main()
