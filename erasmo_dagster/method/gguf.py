"""GGUF files: quantized weights unpacked once into a safetensors folder that loads in seconds."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from erasmo_dagster import progress
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.files import checksums, whole_folder
from erasmo_dagster.method.memory import release_memory
from erasmo_dagster.method.quiet import quiet_libraries

MANIFEST = "model.json"


def unpack_gguf(gguf: Path, into: Path, *, name: str, source_sha256: str) -> None:
    """Dequantize ``gguf`` to float32 and save weights, config and tokenizer in the folder ``into``.

    The folder appears whole, with the manifest ``model.json`` in it: where the weights come from, library versions,
    checksum of every file. Peak memory is about 9 bytes a parameter. Raises ErasmoError for a file that is no GGUF
    of a causal language model that transformers knows, and when the disk is full.
    """
    quiet_libraries()
    model, tokenizer = _read(gguf, name)
    with whole_folder(into) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        # Saved readable by their owner alone, unlike the files beside them.
        for weights in folder.glob("*.safetensors"):
            weights.chmod((folder / "config.json").stat().st_mode)
        write_manifest(folder, name, gguf.name, source_sha256, ("gguf", "safetensors", "torch", "transformers"))
    del model
    release_memory()


def write_manifest(folder: Path, name: str, source: str, source_sha256: str, libraries: Sequence[str] = ()) -> None:
    """Write ``model.json`` beside a model's files: its source, the libraries that made them, every file's checksum."""
    manifest = {
        "name": name,
        "source": source,
        "source_sha256": source_sha256,
        "versions": {library: version(library) for library in libraries},
        "files": checksums(folder),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of an unpacked model; None where there is none, so that the folder counts as not there."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and {"name", "source_sha256", "files"} <= manifest.keys() else None


def _read(gguf: Path, name: str) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    try:
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, local_files_only=True)
        with _own_bar():
            model: Any = AutoModelForCausalLM.from_pretrained(
                gguf.parent,
                gguf_file=gguf.name,
                quantization_config=GgufConfig(dequantize=True),
                dtype=torch.float32,
                local_files_only=True,
            )
    except Exception as error:  # whatever its parser stumbles over in a file that it did not write
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ErasmoError(
            f"Got {gguf.name} for {name}, which does not load ({reason})",
            expected="a GGUF file of a causal language model that transformers can read",
            fix="fetch the file again, or use another model",
        ) from error
    # The weights are plain floats now; as long as the model calls itself quantized, it refuses to be saved.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config.name_or_path = name
    return model, tokenizer


@contextmanager
def _own_bar() -> Iterator[None]:
    """Show transformers' unpacking as this product's progress bar; its own has no switch."""
    module: Any = importlib.import_module("transformers.modeling_gguf_pytorch_utils")

    def shown(tensors: Sequence[Any], **_: Any) -> Iterator[Any]:
        with progress.bar("unpacking the model", len(tensors), "tensors") as bar:
            for tensor in tensors:
                yield tensor
                bar.update()

    theirs = getattr(module, "tqdm", None)
    module.tqdm = shown
    try:
        yield
    finally:
        module.tqdm = theirs
