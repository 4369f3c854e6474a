"""Models from disk to memory: a base model, with or without the adapter that was trained over it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.files import damaged
from erasmo_dagster.method.base_models import LocalModel
from erasmo_dagster.method.cores import use_cores
from erasmo_dagster.method.gguf import read_manifest
from erasmo_dagster.method.quiet import quiet_libraries

if TYPE_CHECKING:
    import torch

ADAPTER_MANIFEST = "erasmo.json"
_UNKNOWN_LENGTH = 1_000_000  # tokenizers that know no limit say 1e30


@dataclass(frozen=True)
class LoadedModel:
    """A causal language model of transformers in memory, its tokenizer, and the most tokens that it takes."""

    model: Any
    tokenizer: Any
    device: torch.device
    max_length: int


def load_model(base: LocalModel, adapter: Path | None, device: str = "auto") -> LoadedModel:
    """The base model with ``adapter`` merged in, ready for inference; bf16 on CUDA, fp32 elsewhere.

    ``adapter`` is a folder that ``fine_tune`` wrote (low-rank weights, or a whole model that is loaded instead of the
    base), or any LoRA adapter that peft saved. Checksums written beside the weights are verified first. Raises
    ErasmoError for damaged files and for an adapter that was trained over other base weights.
    """
    import torch

    place = pick_device(device)
    whole = adapter is not None and (adapter / "config.json").is_file()
    if adapter is not None:
        _check_adapter(adapter, base)
    if adapter is not None and whole:
        fix = f"delete {adapter} and run again"
        model = load_weights(adapter, f"the model fine-tuned from {base.name}", fix)
        tokenizer = load_tokenizer(adapter, base.name, fix)
    else:
        model, tokenizer = load_base(base)
        if adapter is not None:
            model = _merged(model, adapter)
    model.eval()
    model.requires_grad_(False)
    if place.type == "cuda" and torch.cuda.is_bf16_supported():
        model.to(dtype=torch.bfloat16)
    model.to(place)
    return LoadedModel(model, tokenizer, place, token_limit(model, tokenizer))


def load_base(base: LocalModel) -> tuple[Any, Any]:
    """The base model in fp32 on the CPU, and its tokenizer. Raises ErasmoError for damaged files."""
    fix = check_files(base)
    return load_weights(base.path, base.name, fix), load_tokenizer(base.path, base.name, fix)


def check_files(base: LocalModel) -> str:
    """Raise ErasmoError where a file of the model is not as it was unpacked; gives what mends one that does not load.

    Only models that were unpacked here have checksums.
    """
    if (manifest := read_manifest(base.path)) and (name := damaged(base.path, manifest["files"])):
        raise ErasmoError(
            f"Got {base.path / name} other than it was written, for {base.name}",
            expected="the file with the checksum in model.json",
            fix=f"delete the folder {base.path} and run again",
        )
    if base.name.startswith("path:"):
        return "mend the model's files, or take another model"
    return f"delete the folder {base.path} and run again"


def load_weights(folder: Path, name: str, fix: str) -> Any:
    """A causal language model from safetensors, in fp32 on the CPU. Raises ErasmoError for what does not load."""
    quiet_libraries()
    import torch
    from transformers import AutoModelForCausalLM

    load: Any = AutoModelForCausalLM.from_pretrained
    try:
        model, info = load(
            folder,
            dtype=torch.float32,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as error:  # files of any content: parsers fail in their own ways
        raise _does_not_load(folder, name, _reason(error), fix) from error
    if missing := sorted(info["missing_keys"]):  # transformers would go on with random numbers for them
        raise _does_not_load(folder, name, f"it has no weights for {missing[0]} and {len(missing) - 1} more", fix)
    return model


def load_tokenizer(folder: Path, name: str, fix: str) -> Any:
    """The tokenizer in a model's folder. Raises ErasmoError for what does not load."""
    quiet_libraries()
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise _does_not_load(folder, name, _reason(error), fix) from error
    return tokenizer


def pick_device(wanted: str) -> torch.device:
    """``auto`` is a GPU where there is one; on a CPU torch gets as many threads as there are cores.

    Raises ErasmoError for a device that this machine lacks.
    """
    import torch

    use_cores()
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return torch.device(next(kind for kind, present in there.items() if present))
    if not there.get(wanted, False):
        raise ErasmoError(
            f"Got device {wanted}, which this machine or this build of torch lacks",
            expected=f"one of auto, {', '.join(kind for kind, present in there.items() if present)}",
            fix="set `adapter.device`",
        )
    return torch.device(wanted)


def token_limit(model: Any, tokenizer: Any) -> int:
    """Most tokens of a text: the model's positions, or what its tokenizer says where those are not bounded."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return int(min(positions or _UNKNOWN_LENGTH, tokenizer.model_max_length, _UNKNOWN_LENGTH))


def _check_adapter(adapter: Path, base: LocalModel) -> None:
    retrain = f"delete {adapter} and run again"
    if not any((adapter / name).is_file() for name in ("adapter_config.json", "config.json")):
        raise ErasmoError(f"Got no adapter in {adapter}", expected="what fine-tuning saves there", fix=retrain)
    if not any(adapter.glob("*.safetensors")):
        raise ErasmoError(f"Got no safetensors in {adapter}", expected="weights that are not pickled", fix=retrain)
    file = adapter / ADAPTER_MANIFEST
    if not file.is_file():
        return  # an adapter from elsewhere: peft's own checks will have to do
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        files, trained_over = dict(manifest["files"]), str(manifest["base"]["revision"])
    except (ValueError, KeyError, TypeError) as error:
        raise ErasmoError(f"Got {file}, which does not parse", expected="the file as written", fix=retrain) from error
    if name := damaged(adapter, files):
        raise ErasmoError(
            f"Got {adapter / name} other than it was written",
            expected=f"the file with the checksum in {ADAPTER_MANIFEST}",
            fix=retrain,
        )
    if trained_over != base.revision:
        raise ErasmoError(
            f"Got an adapter in {adapter} that was trained over revision {trained_over[:12]} of its base model",
            expected=f"{base.revision[:12]}, which {base.name} is now",
            fix="run again, which trains anew",
        )


def _merged(model: Any, adapter: Path) -> Any:
    from peft import PeftModel

    try:
        tuned = PeftModel.from_pretrained(model, str(adapter), local_files_only=True, torch_device="cpu")
        return tuned.merge_and_unload()
    except Exception as error:
        fix = f"delete {adapter} and run again"
        raise _does_not_load(adapter, "the adapter", _reason(error), fix) from error


def _does_not_load(folder: Path, name: str, reason: str, fix: str) -> ErasmoError:
    return ErasmoError(
        f"Got {name} in {folder}, which does not load ({reason})",
        expected="a causal language model that transformers knows, whole",
        fix=fix,
    )


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
