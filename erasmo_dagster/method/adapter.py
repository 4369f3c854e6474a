"""Fine-tuning a base model on the rows of a table, and what is kept of it (arXiv 2410.03738, section 3.2)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.files import checksums, damaged, whole_folder
from erasmo_dagster.method.base_models import LocalModel
from erasmo_dagster.method.batches import TrainingTexts, split_rows
from erasmo_dagster.method.checkpoints import Checkpoints
from erasmo_dagster.method.loading import ADAPTER_MANIFEST, LoadedModel, load_base, load_model, pick_device, token_limit
from erasmo_dagster.method.lora import fuse_lora
from erasmo_dagster.method.losses import TokenLoss
from erasmo_dagster.method.memory import release_memory
from erasmo_dagster.method.parallel import Alone, Workers
from erasmo_dagster.method.quiet import quiet_libraries
from erasmo_dagster.method.training import LossPoint, Training, TrainingResult
from erasmo_dagster.settings import AdapterSettings

if TYPE_CHECKING:
    import torch

__all__ = ["FineTune", "FineTuning", "LoadedModel", "LossPoint", "TrainingResult", "fine_tune", "load_model"]

_TRAINING = "training.json"
_HASHED_ROWS = 4096  # read at a time
_RECIPE = 1  # counts changes to the training that make an old checkpoint useless


class FineTune(Protocol):
    """What fine-tunes: :func:`fine_tune` in this process, or the same elsewhere."""

    def __call__(
        self,
        rows: Sequence[Sequence[str]],
        base: LocalModel,
        settings: AdapterSettings,
        *,
        seed: int,
        out: Path,
        checkpoints: Path,
        provenance: dict[str, Any],
    ) -> TrainingResult:
        """As :func:`fine_tune`."""


def fine_tune(
    rows: Sequence[Sequence[str]],
    base: LocalModel,
    settings: AdapterSettings,
    *,
    seed: int,
    out: Path,
    checkpoints: Path,
    provenance: dict[str, Any],
) -> TrainingResult:
    """Train ``base`` on ``rows`` (each row's clauses, in canonical order) and save the result in the folder ``out``.

    ``out`` appears whole: the weights as peft saves them (``method: full``: as transformers does, with the tokenizer),
    ``training.json`` with the result, and ``erasmo.json`` with settings, seed, ``provenance``, library versions and
    the checksum of every file. Interrupted, it goes on from the last checkpoint in ``checkpoints``, a folder of its
    own that is removed at the end. Where ``out`` already holds the result of the same call, that is returned.

    Raises ErasmoError for a loss that is not finite, unknown LoRA targets, damaged model files, a full disk.
    """
    job = FineTuning.of(rows, base, settings, seed=seed, out=out, checkpoints=checkpoints, provenance=provenance)
    return job.finished() or job.run(rows)


@dataclass(frozen=True)
class FineTuning:
    """A call of :func:`fine_tune` without its rows; ``key`` is a hash of all that the trained weights depend on."""

    base: LocalModel
    settings: AdapterSettings
    seed: int
    out: Path
    checkpoints: Path
    provenance: dict[str, Any]
    key: str

    @classmethod
    def of(
        cls,
        rows: Sequence[Sequence[str]],
        base: LocalModel,
        settings: AdapterSettings,
        *,
        seed: int,
        out: Path,
        checkpoints: Path,
        provenance: dict[str, Any],
    ) -> FineTuning:
        """Of such a call; every row is read once. Raises ErasmoError where there is none."""
        if not rows:
            raise ErasmoError("Got no rows to train on", expected="at least one")
        return cls(base, settings, seed, out, checkpoints, provenance, _key(rows, base, settings, seed))

    def finished(self) -> TrainingResult | None:
        """The result in ``out``, if the same call wrote it and it is undamaged."""
        try:
            about = json.loads((self.out / ADAPTER_MANIFEST).read_text(encoding="utf-8"))
            others = about["key"] != self.key or about["provenance"] != self.provenance
            if others or damaged(self.out, about["files"]):
                return None
            return TrainingResult.model_validate_json((self.out / _TRAINING).read_bytes())
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def run(self, rows: Sequence[Sequence[str]], workers: Workers | None = None) -> TrainingResult:
        """Train, and save the result. Each of several workers calls it with the same rows; the first one saves."""
        quiet_libraries()
        import torch

        workers = workers or Alone()
        settings, seed = self.settings, self.seed
        device = pick_device(settings.device)
        store = Checkpoints(self.checkpoints, self.key, workers)
        with torch.random.fork_rng([torch.cuda.current_device()] if device.type == "cuda" else []):
            torch.manual_seed(seed)  # for the adapter's initial weights
            model, tokenizer = load_base(self.base)
            train, held_out = split_rows(len(rows), settings.eval_fraction, settings.eval_rows, seed)
            limit = min(settings.max_length, token_limit(model, tokenizer))
            texts = TrainingTexts(rows, tokenizer, limit, seed, train, held_out, shuffled=settings.shuffle)
            model = _trainable(model, self.base, settings, device)
            training = Training(
                model,
                texts,
                settings,
                seed=seed,
                device=device,
                checkpoints=store,
                loss=TokenLoss(model, device, self.base.name),
                workers=workers,
            )
            training.run()
            result = _result(training)
            if workers.rank == 0:
                _save(self, model, tokenizer, result)
        store.remove()
        del training, model
        release_memory()
        return result


def _trainable(model: Any, base: LocalModel, settings: AdapterSettings, device: torch.device) -> Any:
    """The model on its device with the weights to train marked: the adapter's or all."""
    if settings.method == "lora":
        model = _with_lora(model, base, settings)
    else:
        model.requires_grad_(True)
    if settings.gradient_checkpointing:
        # Renamed within transformers 5; the old name warns.
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    model.to(device)
    if device.type == "cpu":  # elsewhere the steps are in half precision, which is torch's to choose
        fuse_lora(model)
    return model


def _with_lora(model: Any, base: LocalModel, settings: AdapterSettings) -> Any:
    from peft import LoraConfig, get_peft_model
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    config = LoraConfig(
        r=settings.lora.rank,
        lora_alpha=settings.lora.alpha,
        lora_dropout=settings.lora.dropout,
        # Every linear layer of the blocks, whatever the architecture calls them; the output layer stays out.
        target_modules=list(settings.lora.targets) or "all-linear",
        # GPT-2 and its like keep their weights transposed.
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
        task_type="CAUSAL_LM",
    )
    try:
        adapted = get_peft_model(model, config)
    except ValueError as error:
        linear = {name.rsplit(".", 1)[-1] for name, m in model.named_modules() if isinstance(m, Linear | Conv1D)}
        raise ErasmoError(
            f"Got adapter.lora.targets {list(settings.lora.targets)}, which {base.name} has not",
            expected=f"names among {', '.join(sorted(linear))}",
        ) from error
    # A name that means the same on every machine, where peft would note a folder of this one.
    adapted.peft_config["default"].base_model_name_or_path = base.name.removeprefix("hf:")
    return adapted


def _result(training: Training) -> TrainingResult:
    state = training.state
    assert state.stopped_by is not None
    return TrainingResult(
        steps=state.step,
        epochs=round(state.rows / len(training.texts.train), 4),
        tokens=state.tokens,
        rows=len(training.texts.train),
        eval_rows=len(training.texts.held_out),
        truncated_rows=len(training.texts.cut),
        loss_curve=tuple(state.curve),
        first_eval_loss=state.curve[0].eval_loss,
        eval_loss=state.best_loss,
        best_step=state.step if state.best_step is None else state.best_step,
        stopped_by=state.stopped_by,
        seconds=state.seconds,
        resumed_from=training.resumed_from,
        trainable_parameters=sum(p.numel() for p in training.weights.values()),
        device=training.device.type,
    )


def _save(job: FineTuning, model: Any, tokenizer: Any, result: TrainingResult) -> None:
    with whole_folder(job.out) as folder:
        if job.settings.method == "lora":
            config = model.peft_config["default"]
            config.target_modules = sorted(config.target_modules)  # a set is written in another order every time
            model.save_pretrained(str(folder), save_embedding_layers=False)
            (folder / "README.md").unlink(missing_ok=True)  # an empty form
        else:
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        for weights in folder.glob("*.safetensors"):
            weights.chmod(folder.stat().st_mode & 0o666)  # saved readable by their owner alone
        (folder / _TRAINING).write_text(result.model_dump_json(indent=2) + "\n", encoding="utf-8")
        about = {"key": job.key, "base": {"name": job.base.name, "revision": job.base.revision}, "seed": job.seed}
        about |= {"settings": job.settings.model_dump(mode="json"), "provenance": job.provenance}
        libraries = ("erasmo-dagster", "peft", "safetensors", "torch", "transformers")
        about |= {"versions": {name: version(name) for name in libraries}, "files": checksums(folder)}
        (folder / ADAPTER_MANIFEST).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def _key(rows: Sequence[Sequence[str]], base: LocalModel, settings: AdapterSettings, seed: int) -> str:
    """A hash of all that the trained weights depend on."""
    digest = hashlib.sha256()
    for start in range(0, len(rows), _HASHED_ROWS):
        for row in rows[start : start + _HASHED_ROWS]:
            digest.update(json.dumps(list(row), ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
    recipe = {
        "recipe": _RECIPE,
        "rows": digest.hexdigest(),
        "base": [base.name, base.revision],
        "settings": settings.model_dump(mode="json", exclude={"device", "forward_tokens"}),
        "seed": seed,
    }
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
