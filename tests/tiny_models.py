"""Tiny random-weight causal LMs with a real fast tokenizer: whole models of a few kilobytes for offline tests."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ARCHITECTURES = ("gpt2", "llama", "falcon", "qwen2", "qwen3", "gemma", "phi", "opt", "bloom")
POSITIONS = 512
END, PAD = "<|endoftext|>", "<|pad|>"
CORPUS = (
    "species is Adelie, island is Torgersen, bill length is 39.1, body mass is 3750, sex is male",
    "species is Gentoo, island is Biscoe, bill length is 46.1, body mass is 4500, sex is female",
    "age is 41, job is technician, marital is married, education is secondary, balance is 1270, housing is yes",
    "age is thirty-five, job is management, marital is single, education is tertiary, balance is missing",
    "symbol is Fe, name is Iron, description is a malleable metal, uses is steel and tools, period is 4",
)
HEADS = 4


def tiny_causal_lm(
    folder: Path,
    *,
    arch: str = "llama",
    hidden: int = 32,
    layers: int = 2,
    seed: int = 0,
    corpus: Sequence[str] | None = None,
) -> Path:
    """Save a random causal LM of one architecture, with its tokenizer, as `save_pretrained` does; returns ``folder``.

    ``hidden`` is a multiple of 8. The tokenizer is a byte-level BPE of at most 300 tokens trained on ``corpus``, so it
    takes any text. The same arguments give the same bytes.
    """
    import torch
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    backend = _byte_level_bpe(corpus or CORPUS)
    make_tokenizer: Any = PreTrainedTokenizerFast
    tokenizer = make_tokenizer(
        tokenizer_object=backend, eos_token=END, bos_token=END, pad_token=PAD, model_max_length=POSITIONS
    )
    config = _config(arch, hidden, layers, tokenizer.eos_token_id, tokenizer.pad_token_id, len(tokenizer))
    with torch.random.fork_rng(devices=[]), _no_bars():
        torch.manual_seed(seed)
        make_model: Any = AutoModelForCausalLM.from_config
        model = make_model(config)
        # Fresh layers are nearly linear (std 0.02); wider weights make a text's vector depend on its content.
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.15)
        folder.mkdir(parents=True, exist_ok=True)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder


def _config(arch: str, hidden: int, layers: int, end: int, pad: int, vocabulary: int) -> Any:
    from transformers import AutoConfig

    common: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": pad,
    }
    positions = {"max_position_embeddings": POSITIONS}
    grouped = {"num_key_value_heads": HEADS // 2, "intermediate_size": 2 * hidden, **positions}
    own: dict[str, dict[str, Any]] = {
        "gpt2": {**positions, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
        "llama": grouped,
        "falcon": {**positions, "ffn_hidden_size": 2 * hidden},
        "qwen2": grouped,
        "qwen3": {**grouped, "head_dim": hidden // HEADS},
        "gemma": {**grouped, "head_dim": hidden // HEADS},
        "phi": {"intermediate_size": 2 * hidden, **positions},
        "opt": {**positions, "ffn_dim": 2 * hidden, "word_embed_proj_dim": hidden, "dropout": 0.0},
        "bloom": {},
    }
    return AutoConfig.for_model(arch, **common, **own[arch])


def _byte_level_bpe(corpus: Sequence[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=[END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(corpus, trainer)
    return backend


@contextmanager
def _no_bars() -> Iterator[None]:
    """Keeps transformers' progress bars out of the tests' output."""
    logging: Any = importlib.import_module("transformers.utils.logging")
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    yield
    if shown:
        logging.enable_progress_bar()


def tiny_gguf(file: Path, *, seed: int = 0) -> Path:
    """Save the tiny qwen2 model and its tokenizer as one GGUF file with 8-bit weights, as llama.cpp names them."""
    import json
    from tempfile import TemporaryDirectory

    from gguf import GGMLQuantizationType, GGUFWriter, TokenType
    from gguf.quants import quantize
    from safetensors.numpy import load_file

    with TemporaryDirectory() as folder:
        model = tiny_causal_lm(Path(folder) / "model", arch="qwen2", seed=seed)
        tensors = load_file(model / "model.safetensors")
        config = json.loads((model / "config.json").read_text())
        vocabulary = json.loads((model / "tokenizer.json").read_text())["model"]
    writer = GGUFWriter(file, "qwen2")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    tokens = sorted(vocabulary["vocab"], key=vocabulary["vocab"].__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if t in (END, PAD) else TokenType.NORMAL for t in tokens])
    writer.add_token_merges([" ".join(pair) for pair in vocabulary["merges"]])
    writer.add_bos_token_id(tokens.index(END))
    writer.add_eos_token_id(tokens.index(END))
    writer.add_pad_token_id(tokens.index(PAD))
    for name, tensor in tensors.items():
        if tensor.ndim == 1:
            writer.add_tensor(_gguf_name(name), tensor)
        else:
            kind = GGMLQuantizationType.Q8_0
            writer.add_tensor(_gguf_name(name), quantize(tensor, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _gguf_name(name: str) -> str:
    renamed = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
        "model.layers": "blk",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "post_attention_layernorm": "ffn_norm",
        "input_layernorm": "attn_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    for theirs, ours in renamed.items():
        name = name.replace(theirs, ours)
    return name
