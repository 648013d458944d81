"""Writes rope_goldens.inc: inverse frequencies as transformers computes them, in f32.

Run with transformers 5 and torch:  python tests/spec/make_rope_goldens.py > tests/spec/rope_goldens.inc
"""

import json

import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.phi3.modeling_phi3 import Phi3RotaryEmbedding

SHORT = [1.0, 1.05, 1.2, 1.35, 1.5, 1.8]
LONG = [1.1, 2.0, 4.0, 8.5, 16.25, 31.0]
LLAMA = dict(num_attention_heads=4, hidden_size=64, max_position_embeddings=2048)
PHI3 = dict(
    num_attention_heads=4,
    hidden_size=64,
    max_position_embeddings=8192,
    original_max_position_embeddings=2048,
    pad_token_id=0,
)

CASES = [
    ("llama", LLAMA, {"rope_type": "default", "rope_theta": 500000.0}, 100),
    ("llama", LLAMA, {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}, 100),
    ("llama", LLAMA, {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}, 100),
    ("llama", LLAMA, {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}, 7000),
    (
        "llama",
        dict(LLAMA, hidden_size=512, max_position_embeddings=131072),
        {
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        100,
    ),
    (
        "llama",
        dict(LLAMA, hidden_size=256, max_position_embeddings=65536),
        {
            "rope_type": "yarn",
            "rope_theta": 10000.0,
            "factor": 16.0,
            "original_max_position_embeddings": 4096,
        },
        100,
    ),
    (
        "llama",
        dict(LLAMA, hidden_size=256, max_position_embeddings=65536),
        {
            "rope_type": "yarn",
            "rope_theta": 50000.0,
            "factor": 40.0,
            "original_max_position_embeddings": 4096,
            "beta_fast": 24.0,
            "beta_slow": 2.0,
            "mscale": 0.707,
            "mscale_all_dim": 1.1,
            "truncate": False,
        },
        100,
    ),
    (
        "llama",
        dict(LLAMA, max_position_embeddings=8192),
        {
            "rope_type": "yarn",
            "rope_theta": 10000.0,
            "factor": 2.0,
            "original_max_position_embeddings": 16,
            "attention_factor": 1.25,
        },
        100,
    ),
    (
        "phi3",
        PHI3,
        {
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.75,
            "short_factor": SHORT,
            "long_factor": LONG,
        },
        2048,
    ),
    (
        "phi3",
        PHI3,
        {
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.75,
            "short_factor": SHORT,
            "long_factor": LONG,
        },
        2049,
    ),
    ("phi3", PHI3, {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}, 100),
]

print("// Written by make_rope_goldens.py with transformers", transformers.__version__ + ".")
for model_type, shape, rope, seq_len in CASES:
    config_class = {"llama": transformers.LlamaConfig, "phi3": transformers.Phi3Config}[model_type]
    config = config_class(
        vocab_size=100, intermediate_size=96, num_hidden_layers=1, rope_parameters=dict(rope), **shape
    )
    text = config.to_json_string().strip()
    if rope["rope_type"] == "default":
        embedding = {"llama": LlamaRotaryEmbedding, "phi3": Phi3RotaryEmbedding}[model_type]
        frequencies, scale = embedding.compute_default_rope_parameters(config)
    else:
        frequencies, scale = ROPE_INIT_FUNCTIONS[rope["rope_type"]](config, None, seq_len=seq_len)
    numbers = ", ".join(f"{value:.9g}" for value in frequencies.tolist())
    print(f'{{"{rope["rope_type"]}", {seq_len}, {scale!r}, {{{numbers}}}, R"json({text})json"}},')
