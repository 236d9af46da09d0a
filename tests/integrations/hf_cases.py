"""One tiny model of each family with random weights, and its inputs: what every test of the registration runs over."""

from __future__ import annotations

import importlib

import torch

VOCAB = 61
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
SIZES = {"vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
DECODER = {**SIZES, **HEADS, **TOKENS, "head_dim": 8, "max_position_embeddings": 128}
BART = {
    **TOKENS,
    "vocab_size": VOCAB,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "decoder_start_token_id": 1,
}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
MIXED = ["sliding_attention", "full_attention"]

# name: (configuration's class, its options, model's class)
FAMILIES = {
    "llama": ("LlamaConfig", DECODER, "LlamaForCausalLM"),
    "qwen3": ("Qwen3Config", DECODER, "Qwen3ForCausalLM"),
    "mistral": ("MistralConfig", {**DECODER, "sliding_window": 5}, "MistralForCausalLM"),
    "gpt_oss": (
        "GptOssConfig",
        {**DECODER, "sliding_window": 5, "layer_types": MIXED, "num_local_experts": 2, "num_experts_per_tok": 1},
        "GptOssForCausalLM",
    ),
    "gemma2": (
        "Gemma2Config",
        {**DECODER, "sliding_window": 5, "layer_types": MIXED, "attn_logit_softcapping": 0.7,
         "query_pre_attn_scalar": 5},
        "Gemma2ForCausalLM",
    ),
    "gemma3": (
        "Gemma3TextConfig",
        {**DECODER, "sliding_window": 5, "layer_types": MIXED, "query_pre_attn_scalar": 5},
        "Gemma3ForCausalLM",
    ),
    "bert": ("BertConfig", {**SIZES, **NO_DROPOUT, "num_attention_heads": 4}, "BertForMaskedLM"),
    "modernbert": (
        "ModernBertConfig",
        {**SIZES, **TOKENS, "num_attention_heads": 4, "local_attention": 6, "global_attn_every_n_layers": 2},
        "ModernBertForMaskedLM",
    ),
    "vit": (
        "ViTConfig",
        {**SIZES, **NO_DROPOUT, "num_attention_heads": 4, "image_size": 8, "patch_size": 2},
        "ViTForImageClassification",
    ),
    "bart": ("BartConfig", {**BART, "dropout": 0.0, "max_position_embeddings": 128}, "BartForConditionalGeneration"),
    "whisper": (
        "WhisperConfig",
        {**BART, "dropout": 0.0, "num_mel_bins": 8, "max_source_positions": 10, "max_target_positions": 64},
        "WhisperForConditionalGeneration",
    ),
    "t5": (
        "T5Config",
        {"vocab_size": VOCAB, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4,
         "dropout_rate": 0.0, "decoder_start_token_id": 0},
        "T5ForConditionalGeneration",
    ),
}  # fmt: skip
DECODERS = ["llama", "qwen3", "mistral", "gpt_oss", "gemma2", "gemma3"]
ENCODERS = ["bert", "modernbert", "vit"]
PAIRS = ["bart", "whisper", "t5"]


def interfaced(name):
    """Return whether this version of transformers lets a family's layers ask which attention to call."""
    transformers = importlib.import_module("transformers")
    return getattr(transformers, FAMILIES[name][2])._can_set_attn_implementation()


def build(name, implementation="eager", **options):
    """Return a family's model in evaluation mode; the same weights whatever the implementation."""
    transformers = importlib.import_module("transformers")
    config_class, known, model_class = FAMILIES[name]
    config = getattr(transformers, config_class)(**{**known, **options})
    torch.manual_seed(7)
    model = getattr(transformers, model_class)._from_config(config, attn_implementation=implementation)
    with torch.no_grad():  # weights of 0.02 would leave all scores near 0, and attention uniform
        for parameter_name, parameter in model.named_parameters():
            if parameter.dim() == 2 and "embed" not in parameter_name:
                parameter.copy_(torch.randn_like(parameter) * parameter.shape[1] ** -0.5)
            if parameter_name.endswith("sinks"):
                parameter.copy_(torch.randn_like(parameter))
    return model.eval()


def tokens(batch=2, length=12, *, seed=3):
    """Return token numbers, none of which means anything special."""
    return torch.randint(3, VOCAB, (batch, length), generator=torch.Generator().manual_seed(seed))


def inputs(name, *, length=12, padding=None):
    """Return what a family's model takes, with its first sequence padded on one side; and where its output counts."""
    ids = tokens(length=length)
    mask = torch.ones_like(ids)
    if padding is not None:
        mask[0, slice(0, 4) if padding == "left" else slice(length - 4, length)] = 0
    given = {"input_ids": ids, "attention_mask": mask}
    counts = mask.bool()
    if name == "vit":
        pixels = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))
        return {"pixel_values": pixels}, torch.ones(2, dtype=torch.bool)
    if name in PAIRS:
        given["decoder_input_ids"] = tokens(length=7, seed=4)
        counts = torch.ones(2, 7, dtype=torch.bool)
    if name == "whisper":
        sound = torch.randn(2, 8, 20, generator=torch.Generator().manual_seed(3))
        return {"input_features": sound, "decoder_input_ids": given["decoder_input_ids"]}, counts
    return given, counts
