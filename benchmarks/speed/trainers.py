"""Three ways to train a base model on the same rows, each in a process of its own, so that its memory is its own."""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.quality.memory import resident, system_peak
from erasmo_dagster import progress
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.base_models import LocalModel
from erasmo_dagster.method.batches import TrainingTexts, padded, split_by_tokens, split_rows
from erasmo_dagster.method.quiet import quiet_libraries
from erasmo_dagster.method.textual import join_clauses, shuffle_clauses
from erasmo_dagster.settings import AdapterSettings

_PATIENCE = 60.0  # seconds for a process to end by itself
_WARM_UP = 0.1  # as this project's rate rises


@dataclass(frozen=True, eq=False)
class Job:
    """Rows as clauses and as a table, the model and how to train it; ``paper_rows`` are those of the paper's one step.

    Of the rows those that ``split_rows`` holds out are kept for the loss.
    """

    rows: Sequence[Sequence[str]]
    frame: pl.DataFrame
    base: LocalModel
    settings: AdapterSettings
    seed: int
    threads: int
    paper_rows: int

    def split(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions of the rows to train on and of those held out, as this project's training splits them."""
        settings = self.settings
        return split_rows(len(self.rows), settings.eval_fraction, settings.eval_rows, self.seed)


def ours(job: Job) -> dict[str, Any]:
    """This project's fine-tuning, on its own settings."""
    from erasmo_dagster.method.adapter import fine_tune

    with tempfile.TemporaryDirectory(prefix="erasmo-speed-") as folder:
        place = Path(folder)
        result = fine_tune(
            job.rows,
            job.base,
            job.settings,
            seed=job.seed,
            out=place / "adapter",
            checkpoints=place / "training",
            provenance={},
        )
    told = {"rows": result.rows, "tokens": result.tokens, "steps": result.steps, "seconds": result.seconds}
    return told if result.eval_loss is None else {**told, "eval_loss": result.eval_loss}


def trainer(job: Job) -> dict[str, Any]:
    """transformers' Trainer on batches that are padded to their longest row, with peft's LoRA of the same settings.

    Rows are put into text when they are drawn, their features in a new order, as this project does.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import DataCollatorForLanguageModeling, PrinterCallback, Trainer, TrainingArguments
    from transformers.pytorch_utils import Conv1D

    from erasmo_dagster.method.loading import load_base, pick_device, token_limit

    settings, place = job.settings, pick_device(job.settings.device)
    model, tokenizer = load_base(job.base)
    limit = min(settings.max_length, token_limit(model, tokenizer))
    transposed = any(isinstance(module, Conv1D) for module in model.modules())
    torch.manual_seed(job.seed)
    lora = LoraConfig(
        r=settings.lora.rank,
        lora_alpha=settings.lora.alpha,
        lora_dropout=settings.lora.dropout,
        target_modules="all-linear",
        fan_in_fan_out=transposed,
        task_type="CAUSAL_LM",
    )
    tuned = get_peft_model(model, lora)
    train, held_out = job.split()
    # The collator counts no loss where the padding token stands; it must not be the one that ends a row.
    end = tokenizer.eos_token_id
    if tokenizer.pad_token_id in (None, end):
        tokenizer.pad_token_id = next(i for i in range(len(tokenizer)) if i != end)
    rows = _Rows(job, train, tokenizer, limit)
    half = place.type == "cuda" and torch.cuda.is_bf16_supported()
    with tempfile.TemporaryDirectory(prefix="erasmo-speed-") as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=settings.batch_size,
            gradient_accumulation_steps=settings.gradient_accumulation,
            num_train_epochs=settings.epochs,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            lr_scheduler_type="linear",
            warmup_steps=_WARM_UP,  # below one: the share of all steps
            max_grad_norm=1.0,
            seed=job.seed,
            bf16=half,
            use_cpu=place.type == "cpu",
            dataloader_pin_memory=False,
            remove_unused_columns=False,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)
        theirs: Any = Trainer(model=tuned, args=arguments, train_dataset=rows, data_collator=collator)
        theirs.remove_callback(PrinterCallback)
        started = time.monotonic()
        theirs.train()
        seconds = time.monotonic() - started
    told = {"rows": len(train), "tokens": rows.tokens, "steps": int(theirs.state.global_step), "seconds": seconds}
    if len(held_out):
        texts = TrainingTexts(job.rows, tokenizer, limit, job.seed, train, held_out, shuffled=settings.shuffle)
        told["eval_loss"] = _loss(tuned, texts.held_out_sequences())
    return told


def paper(job: Job) -> dict[str, Any]:
    """One step of the first paper's procedure: rows padded to 1,024 tokens, all weights trained, padding counted."""
    from erasmo_dagster.method.paper import PaperModel

    model = PaperModel(job.base, verbalize=False, seed=job.seed, device=job.settings.device)
    started = time.monotonic()
    model.train(job.frame, 1, batch=job.paper_rows)
    return {"rows": job.paper_rows, "steps": 1, "seconds": time.monotonic() - started}


TRAINERS: dict[str, Callable[[Job], dict[str, Any]]] = {"ours": ours, "trainer": trainer, "paper": paper}


def run_alone(name: str, job: Job) -> dict[str, Any]:
    """What a trainer tells, in a process of its own, with the most memory that the process held: ``peak_mb``.

    On a GPU ``peak_gpu_mb`` is the most that torch held there. Raises ErasmoError where the process fails.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(name, job, there), daemon=True)
    process.start()
    there.close()
    try:
        told: dict[str, Any] = here.recv()
        process.join(_PATIENCE)
    except EOFError:
        process.join(_PATIENCE)
        raise ErasmoError(f"Got no answer from the training {name!r} (exit status {process.exitcode})") from None
    finally:
        if process.is_alive():
            process.kill()
            process.join()
        here.close()
    if "error" in told:
        raise ErasmoError(f"Got a failure of the training {name!r}: {told['error']}")
    return told


def _child(name: str, job: Job, answer: Connection) -> None:
    quiet_libraries()
    # The Trainer takes any folder `datasets` where it is started for the library of that name.
    sys.modules.setdefault("datasets", None)  # type: ignore[arg-type]
    import torch

    torch.set_num_threads(job.threads)
    try:
        with progress.hidden():
            told = TRAINERS[name](job)
        told["seconds"] = round(told["seconds"], 3)
        told["peak_mb"] = round(system_peak() or resident(), 1)
        if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
            told["peak_gpu_mb"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
        answer.send(told)
    except KeyboardInterrupt:
        return  # the parent was told too
    except Exception as error:
        answer.send({"error": f"{type(error).__name__}: {error}"[:500]})
    finally:
        answer.close()


class _Rows:
    """A data set for the Trainer: each row's features in a new order whenever it is asked for."""

    def __init__(self, job: Job, train: np.ndarray, tokenizer: Any, limit: int) -> None:
        self._rows, self._train, self._tokenizer, self._limit = job.rows, train, tokenizer, limit
        self._rng = np.random.default_rng([job.seed, len(train)])
        self._shuffled = job.settings.shuffle
        self.tokens = 0

    def __len__(self) -> int:
        return len(self._train)

    def __getitem__(self, at: int) -> dict[str, list[int]]:
        clauses = self._rows[int(self._train[at])]
        text = join_clauses(shuffle_clauses(clauses, self._rng) if self._shuffled else clauses)
        ids = self._tokenizer(text)["input_ids"]
        end = self._tokenizer.eos_token_id
        ids = (ids if end is None or ids[-1:] == [end] else [*ids, end])[: self._limit]
        self.tokens += len(ids)
        return {"input_ids": ids, "attention_mask": [1] * len(ids)}


def _loss(model: Any, sequences: Sequence[Sequence[int]]) -> float:
    """Mean cross-entropy (nats) of every next token, all tokens of all sequences counting alike."""
    import torch

    device = next(model.parameters()).device
    model.eval()
    total = targets = 0.0
    with torch.no_grad():
        for group in split_by_tokens([len(sequence) for sequence in sequences], 512):
            ids, mask = padded([sequences[at] for at in group], device)
            logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1].float()
            losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
            total += float((losses * mask[:, 1:]).sum())
            targets += float(mask[:, 1:].sum())
    return total / targets
