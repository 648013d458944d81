"""Writes model_goldens.inc: configs as transformers saves them, and how many parameters it gives them.

Run with transformers 5 and torch:  python tests/spec/make_model_goldens.py > tests/spec/model_goldens.inc
"""

import transformers

TINY = dict(
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=3,
    num_attention_heads=6,
    num_key_value_heads=2,
    vocab_size=101,
    max_position_embeddings=512,
)
CASES = [
    ("llama", transformers.LlamaConfig, dict(TINY, dtype="bfloat16")),
    ("llama_with_biases", transformers.LlamaConfig, dict(TINY, attention_bias=True, mlp_bias=True)),
    ("llama_tied", transformers.LlamaConfig, dict(TINY, tie_word_embeddings=True, head_dim=16)),
    ("mistral", transformers.MistralConfig, dict(TINY, sliding_window=64)),
    ("qwen2", transformers.Qwen2Config, dict(TINY)),
    ("qwen3", transformers.Qwen3Config, dict(TINY, head_dim=16)),
    ("qwen3_with_biases", transformers.Qwen3Config, dict(TINY, head_dim=16, attention_bias=True)),
    ("phi3", transformers.Phi3Config, dict(TINY, pad_token_id=0)),
]

print("// Written by make_model_goldens.py with transformers", transformers.__version__ + ".")
for name, config_class, options in CASES:
    config = config_class(**options)
    config.architectures = [config_class.__name__.replace("Config", "ForCausalLM")]
    model = transformers.AutoModelForCausalLM.from_config(config)
    count = sum(parameter.numel() for parameter in model.parameters())
    text = config.to_json_string().strip()
    print(f'{{"{name}", {count}, R"json({text})json"}},')
