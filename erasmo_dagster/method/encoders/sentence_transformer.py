"""Sentence encoders: models of the sentence-transformers library, such as all-mpnet-base-v2."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from erasmo_dagster import progress
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.base_models import LocalModel
from erasmo_dagster.method.batches import split_by_tokens, tokenize
from erasmo_dagster.method.encoders.base import Batch, assembled
from erasmo_dagster.method.loading import check_files, pick_device, token_limit
from erasmo_dagster.method.quiet import quiet_libraries
from erasmo_dagster.settings import EmbeddingSettings

_MODULES = "modules.json"
_BATCH_TOKENS = 4096  # unless the settings say
_UNUSED = "pooler."  # a layer of BERT's that many files lack: sentence encoders pool over the tokens themselves


class SentenceTransformerEncoder:
    """A sentence encoder in fp32, pooled and scaled as its own modules say (Reimers and Gurevych, EMNLP 2019).

    A plain transformers encoder, without ``modules.json``, is pooled by the mean over its tokens. A text's vector does
    not depend on the texts beside it, up to rounding. After ``encode``, ``tokens`` counts the tokens that went in and
    ``truncated`` tells for each text whether it was longer than the model or ``settings.max_length`` takes.

    Raises ErasmoError for damaged or pickled weights, a model that brings its own code, and one that is no encoder.
    """

    def __init__(self, base: LocalModel, settings: EmbeddingSettings, device: str = "auto") -> None:
        self.settings = settings
        self._model = _load(base, device)
        known = self._model.max_seq_length or token_limit(self._model.transformers_model, self._model.tokenizer)
        self.max_length = min(settings.max_length or known, known)
        self._model.max_seq_length = self.max_length
        # Some models put words of their own before every text.
        self._prompt: str = self._model.prompts.get(self._model.default_prompt_name) or ""
        self.truncated = np.zeros(0, dtype=bool)
        self.tokens = 0

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """One float32 vector a text: [n, d]."""
        return assembled(len(texts), self.batches(texts))

    def batches(self, texts: Sequence[str]) -> Iterator[Batch]:
        """As ``encode``, batch by batch: texts of like length together."""
        lengths = np.array([len(ids) for ids in tokenize(self._model.tokenizer, [self._prompt + t for t in texts])])
        self.truncated = lengths > self.max_length
        lengths = np.minimum(lengths, self.max_length)
        self.tokens = int(lengths.sum())
        with progress.bar("embedding", self.tokens, "tokens") as shown:
            for group in split_by_tokens(lengths.tolist(), self.settings.batch_tokens or _BATCH_TOKENS):
                vectors = self._model.encode(
                    [texts[i] for i in group],
                    batch_size=len(group),
                    normalize_embeddings=self.settings.normalize,
                    show_progress_bar=False,
                )
                yield np.asarray(group, dtype=np.intp), np.asarray(vectors, dtype=np.float32)
                shown.update(int(lengths[group].sum()))


def _load(base: LocalModel, device: str) -> Any:
    fix = check_files(base)
    _check_modules(base, fix)
    place = pick_device(device)
    quiet_libraries()
    import torch

    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise ErasmoError(
            f"Got no sentence-transformers, needed for {base.name} ({error})",
            expected="it to be installed",
            fix="run `pip install 'sentence-transformers>=6,<7'`",
        ) from error
    try:
        model = SentenceTransformer(
            str(base.path),
            device=str(place),
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True, "dtype": torch.float32},
        )
        missing = _missing(base.path, model)
    except Exception as error:  # files of any content: parsers fail in their own ways
        lines = str(error).strip().splitlines()
        raise _does_not_load(base, f"{type(error).__name__}: {lines[0][:200] if lines else ''}", fix) from error
    if missing:  # transformers would go on with random numbers for them
        raise _does_not_load(base, f"it has no weights for {missing[0]} and {len(missing) - 1} more", fix)
    return model


def _check_modules(base: LocalModel, fix: str) -> None:
    """Refuse what the library would read although it is pickled, and models that are no encoders."""
    try:
        if not (base.path / _MODULES).is_file():
            kinds = json.loads((base.path / "config.json").read_text(encoding="utf-8")).get("architectures") or [""]
            if str(kinds[0]).endswith(("ForCausalLM", "LMHeadModel")):
                raise ErasmoError(
                    f"Got {base.name}, a causal language model ({kinds[0]}), for a sentence encoder",
                    expected=f"a model of sentence-transformers, with {_MODULES}",
                    fix="set the encoder causal-lm, or take another model",
                )
            return
        modules = json.loads((base.path / _MODULES).read_text(encoding="utf-8"))
        folders = [base.path / PurePosixPath(module["path"]) for module in modules]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _does_not_load(base, f"{type(error).__name__} in its JSON", fix) from error
    for folder in folders:
        if not any(folder.glob("*.safetensors")) and (pickled := sorted(folder.glob("*.bin"))):
            raise ErasmoError(
                f"Got {base.name} with the pickled {pickled[0].name} in {folder}",
                expected="weights as .safetensors; pickled ones are never loaded, since loading runs what they say",
                fix="use a model that has safetensors, or convert it where you trust the file",
            )


def _missing(folder: Path, model: Any) -> list[str]:
    """Weights of the transformer that its files lack."""
    from safetensors import safe_open
    from transformers import AutoModel

    stored: set[str] = set()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "numpy") as opened:
            stored |= {key.rpartition(".")[0] for key in opened.keys()}  # noqa: SIM118
    weights = [name for name, _ in model.transformers_model.named_parameters() if not name.startswith(_UNUSED)]
    layers = {name.rpartition(".")[0] for name in weights}
    if all(any(key == layer or key.endswith(f".{layer}") for key in stored) for layer in layers):
        return []
    # Some models name their weights otherwise in the file; transformers knows which are the same, and reads them again.
    load: Any = AutoModel.from_pretrained
    _, info = load(folder, local_files_only=True, use_safetensors=True, output_loading_info=True)
    return sorted(key for key in info["missing_keys"] if not key.startswith(_UNUSED))


def _does_not_load(base: LocalModel, reason: str, fix: str) -> ErasmoError:
    return ErasmoError(
        f"Got {base.name} in {base.path}, which does not load ({reason})",
        expected="a sentence encoder, whole",
        fix=fix,
    )
