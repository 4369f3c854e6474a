"""Fine-tuning on tiny random models: what is learnt, saved, resumed and refused."""

from __future__ import annotations

import errno
import json
import logging
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from erasmo_dagster import progress
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method import adapter as adapter_module
from erasmo_dagster.method.adapter import TrainingResult, fine_tune, load_model
from erasmo_dagster.method.base_models import LocalModel, resolve
from erasmo_dagster.method.batches import TrainingTexts, padded, split_by_tokens, split_rows
from erasmo_dagster.method.loading import load_base
from erasmo_dagster.settings import AdapterSettings
from tests.tiny_models import ARCHITECTURES, tiny_causal_lm

pytestmark = pytest.mark.usefixtures("one_thread")

ROWS = [
    [f"age is {20 + i % 50}", f"job is {('technician', 'retired', 'student')[i % 3]}", f"note is calls {i % 7} times"]
    for i in range(40)
]
FAST: dict[str, Any] = {
    "device": "cpu",
    "batch_size": 4,
    "learning_rate": 1e-2,
    "eval_every": 2,
    "max_steps": 6,
    "patience": 50,
    "lora": {"rank": 4, "alpha": 8},
}


def train(
    base: LocalModel, folder: Path, rows: list[list[str]] = ROWS, seed: int = 0, **settings: Any
) -> TrainingResult:
    return fine_tune(
        rows,
        base,
        AdapterSettings(**{**FAST, **settings}),
        seed=seed,
        out=folder / "adapter",
        checkpoints=folder / "checkpoints",
        provenance={"dataset": "people"},
    )


def weights(folder: Path) -> bytes:
    return (folder / "adapter" / "adapter_model.safetensors").read_bytes()


def texts_of(
    base: LocalModel, rows: list[list[str]] = ROWS, max_length: int = 512, held_out: float = 0.1
) -> TrainingTexts:
    _, tokenizer = load_base(base)
    return TrainingTexts(rows, tokenizer, max_length, 0, *split_rows(len(rows), held_out, 64, 0))


# --- what is trained -----------------------------------------------------------------------------


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_architecture_is_adapted_in_all_its_blocks(
    arch: str, models: dict[str, LocalModel], tmp_path: Path
) -> None:
    from safetensors import safe_open
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    result = train(models[arch], tmp_path, max_steps=1)
    assert (result.steps, result.stopped_by) == (1, "steps")
    model, _ = load_base(models[arch])
    head = model.get_output_embeddings()
    linear = {name for name, m in model.named_modules() if isinstance(m, Linear | Conv1D) and m is not head}
    with safe_open(tmp_path / "adapter" / "adapter_model.safetensors", "pt") as file:
        adapted = {key.removeprefix("base_model.model.").rpartition(".lora_")[0] for key in file.keys()}  # noqa: SIM118
    assert adapted == linear


def test_training_lowers_the_loss_on_rows_it_did_not_see(base: LocalModel, tmp_path: Path) -> None:
    result = train(base, tmp_path, max_steps=20, eval_every=10)
    assert result.first_eval_loss is not None
    assert result.eval_loss is not None
    assert result.eval_loss < result.first_eval_loss - 0.5
    assert (result.rows, result.eval_rows) == (36, 4)
    looked_at = [(p.step, p.eval_loss) for p in result.loss_curve if p.eval_loss is not None]
    assert [step for step, _ in looked_at] == [0, 10, 20]
    assert min(loss for _, loss in looked_at) == result.eval_loss
    assert result.loss_curve[0].train_loss is None
    assert all(point.train_loss is not None for point in result.loss_curve[1:])


def test_the_adapter_changes_the_model_as_its_eval_loss_says(base: LocalModel, tmp_path: Path) -> None:
    import torch

    result = train(base, tmp_path)
    held_out = texts_of(base).held_out_sequences()
    for adapter, expected in ((None, result.first_eval_loss), (tmp_path / "adapter", result.eval_loss)):
        loaded = load_model(base, adapter, "cpu")
        losses, targets = 0.0, 0
        for sequence in held_out:  # one by one, by transformers' own loss: no padding, no batches
            ids = torch.tensor([sequence])
            losses += float(loaded.model(input_ids=ids, labels=ids).loss) * (len(sequence) - 1)
            targets += len(sequence) - 1
        assert losses / targets == pytest.approx(expected, rel=1e-4)


def test_full_fine_tuning_saves_a_whole_model(base: LocalModel, tmp_path: Path) -> None:
    result = train(base, tmp_path, method="full", learning_rate=1e-3)
    assert result.eval_loss is not None
    assert result.first_eval_loss is not None
    assert result.eval_loss < result.first_eval_loss
    tuned, plain = load_model(base, tmp_path / "adapter", "cpu"), load_model(base, None, "cpu")
    assert result.trainable_parameters == sum(p.numel() for p in plain.model.parameters())
    changed = [name for name, p in tuned.model.named_parameters() if not p.equal(plain.model.get_parameter(name))]
    assert "model.layers.1.mlp.up_proj.weight" in changed
    assert tuned.tokenizer("age is 41").input_ids == plain.tokenizer("age is 41").input_ids


def test_named_targets_are_the_only_ones_adapted(base: LocalModel, tmp_path: Path) -> None:
    train(base, tmp_path, max_steps=1, lora={"rank": 2, "alpha": 2, "targets": ["q_proj", "v_proj"]})
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["target_modules"] == ["q_proj", "v_proj"]


def test_unknown_targets_are_answered_with_the_known_ones(base: LocalModel, tmp_path: Path) -> None:
    with pytest.raises(ErasmoError, match=r"c_attn.*down_proj.*q_proj"):
        train(base, tmp_path, lora={"targets": ["c_attn"]})


def test_gradient_checkpointing_changes_no_result(base: LocalModel, tmp_path: Path) -> None:
    plain, less_memory = train(base, tmp_path / "a"), train(base, tmp_path / "b", gradient_checkpointing=True)
    assert less_memory.eval_loss == pytest.approx(plain.eval_loss, rel=1e-4)


@pytest.mark.parametrize("settings", [{"forward_tokens": 40}, {"batch_size": 2, "gradient_accumulation": 2}])
def test_how_a_step_is_split_changes_no_result(settings: dict[str, Any], base: LocalModel, tmp_path: Path) -> None:
    rows = [[*row, "remark is " + "la " * (i * 7 % 40)] for i, row in enumerate(ROWS)]  # of very different lengths
    whole, split = train(base, tmp_path / "a", rows), train(base, tmp_path / "b", rows, **settings)
    assert (split.tokens, split.steps) == (whole.tokens, whole.steps)
    curves = [[loss for p in r.loss_curve for loss in (p.train_loss, p.eval_loss) if loss] for r in (whole, split)]
    assert curves[1] == pytest.approx(curves[0], rel=1e-3)


# --- which texts, in which order -----------------------------------------------------------------


def test_an_epoch_shows_every_training_row_once_and_no_held_out_row(base: LocalModel) -> None:
    texts = texts_of(base)
    shown = [s for step in texts.steps(0, 4) for s in step]
    decoded = [texts.tokenizer.decode(s, skip_special_tokens=True) for s in shown]
    assert sorted(sorted(text.split(", ")) for text in decoded) == sorted(sorted(ROWS[i]) for i in texts.train)
    assert set(texts.train) & set(texts.held_out) == set()
    assert set(texts.train) | set(texts.held_out) == set(range(len(ROWS)))
    assert all(s[-1] == texts.tokenizer.eos_token_id for s in shown)


def test_every_epoch_shuffles_anew_and_the_seed_decides(base: LocalModel) -> None:
    texts = texts_of(base)
    first, second = list(texts.steps(0, 4)), list(texts.steps(1, 4))
    assert first == list(texts_of(base).steps(0, 4))
    assert first != second
    flat = [{tuple(s) for step in epoch for s in step} for epoch in (first, second)]
    assert len(flat[0] - flat[1]) > len(ROWS) / 4  # the same rows, in other orders of their clauses


def test_rows_of_similar_length_share_a_step(base: LocalModel) -> None:
    rows = [["note is " + "calls " * (1 + (i * 37) % 60)] for i in range(64)]
    lengths = [[len(s) for s in step] for step in texts_of(base, rows, held_out=0).steps(0, 4)]
    padding = sum(max(step) * len(step) - sum(step) for step in lengths)
    assert padding < 0.1 * sum(map(sum, lengths))


def test_groups_stay_within_their_tokens_and_hold_everything_once() -> None:
    lengths = [5, 90, 7, 7, 30, 1, 12]
    groups = split_by_tokens(lengths, 32, max_rows=3)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    assert [lengths[i] for i in groups[0]] == [90]  # longer than all that is allowed, so alone
    assert all(len(g) <= 3 and max(lengths[i] for i in g) * len(g) <= 32 for g in groups[1:])


def test_padding_is_masked() -> None:
    import torch

    ids, mask = padded([[5, 6, 7], [8]], torch.device("cpu"))
    assert ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]


# --- how long ------------------------------------------------------------------------------------


def test_a_budget_of_tokens_ends_the_training_when_it_is_spent(base: LocalModel, tmp_path: Path) -> None:
    result = train(base, tmp_path, max_tokens=500, max_steps=None)
    assert result.stopped_by == "tokens"
    a_step = result.tokens / result.steps
    assert 500 <= result.tokens < 500 + 1.5 * a_step
    lengths = [len(s) for step in list(texts_of(base).steps(0, 4))[: result.steps] for s in step]
    assert result.tokens == sum(lengths)  # padding not counted


def test_epochs_end_the_training(base: LocalModel, tmp_path: Path) -> None:
    result = train(base, tmp_path, max_steps=None, max_tokens=None, epochs=2)
    assert (result.stopped_by, result.epochs, result.steps) == ("epochs", 2.0, 18)
    assert result.loss_curve[-1].eval_loss is not None


def test_training_stops_when_it_gets_no_better_and_keeps_the_best(base: LocalModel, tmp_path: Path) -> None:
    result = train(base, tmp_path, max_steps=None, epochs=20, eval_every=1, patience=2, learning_rate=0.5)
    assert result.stopped_by == "patience"
    evals = {p.step: p.eval_loss for p in result.loss_curve if p.eval_loss is not None}
    assert result.best_step == result.steps - 2
    assert result.eval_loss == evals[result.best_step] == min(evals.values())
    again = load_model(base, tmp_path / "adapter", "cpu")
    assert held_out_loss(again, texts_of(base).held_out_sequences()) == pytest.approx(result.eval_loss, rel=1e-3)


def held_out_loss(loaded: Any, sequences: list[list[int]]) -> float:
    import torch

    total = targets = 0.0
    for sequence in sequences:
        ids = torch.tensor([sequence])
        total += float(loaded.model(input_ids=ids, labels=ids).loss) * (len(sequence) - 1)
        targets += len(sequence) - 1
    return total / targets


def test_the_learning_rate_warms_up_and_falls() -> None:
    from erasmo_dagster.method.budget import rate_factor

    rates = [rate_factor(i / 20, (i + 1) / 20) for i in range(20)]
    assert rates[:3] == pytest.approx([0.5, 1.0, 1.0])
    assert all(later < earlier for earlier, later in pairwise(rates[2:]))
    assert 0 < rates[-1] < 0.06
    assert rate_factor(0.0, 1.0) == 1.0


def test_long_rows_are_cut_and_counted(base: LocalModel, tmp_path: Path) -> None:
    rows = [*ROWS[:8], *([["note is " + "calls " * 50]] * 2)]
    result = train(base, tmp_path, rows, max_steps=None, epochs=2, max_length=40, eval_fraction=0)
    assert result.truncated_rows == 2
    assert result.tokens <= 2 * 40 * len(rows)


@pytest.mark.parametrize("rows", [ROWS[:1], ROWS[:2]])
def test_a_row_or_two_are_enough_and_hold_nothing_out(rows: list[list[str]], base: LocalModel, tmp_path: Path) -> None:
    result = train(base, tmp_path, rows)
    assert (result.rows, result.eval_rows, result.eval_loss) == (len(rows), 0, None)
    assert result.best_step == result.steps


def test_rows_without_any_text_are_refused(base: LocalModel, tmp_path: Path) -> None:
    with pytest.raises(ErasmoError, match="without a word"):
        train(base, tmp_path, [[], []])
    with pytest.raises(ErasmoError, match="no rows"):
        train(base, tmp_path, [])


def test_a_loss_that_is_not_finite_ends_the_training(base: LocalModel, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tiny_causal_lm(tmp_path / "nan")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"][:] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    broken = resolve(f"path:{folder}", tmp_path)
    for fraction in (0.0, 0.1):
        with pytest.raises(ErasmoError, match=r"nan.*learning_rate"):
            train(broken, tmp_path, eval_fraction=fraction)
    assert not (tmp_path / "adapter").exists()


# --- seeds, interruptions ------------------------------------------------------------------------


def test_the_seed_decides_the_weights(base: LocalModel, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"lora": {"rank": 4, "alpha": 8, "dropout": 0.2}}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(base, tmp_path / name, seed=seed, **settings)
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
    assert weights(tmp_path / "a") != weights(tmp_path / "c")


def test_training_leaves_torchs_own_generator_alone(base: LocalModel, tmp_path: Path) -> None:
    import torch

    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    train(base, tmp_path, max_steps=1)
    assert torch.equal(torch.rand(3), expected)


class Interrupted:
    """A progress bar that is interrupted after some steps."""

    def __init__(self, steps: int) -> None:
        self.left, self.n, self.total = steps, 0, 10**9

    def __enter__(self) -> Interrupted:
        return self

    def __exit__(self, *_: object) -> None: ...

    def set_postfix(self, **_: object) -> None: ...

    def update(self, n: int) -> None:
        self.n += n
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def interrupt(monkeypatch: pytest.MonkeyPatch, base: LocalModel, folder: Path, steps: int, **settings: Any) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(progress, "bar", lambda *_, **__: Interrupted(steps))
        train(base, folder, **settings)
    assert not (folder / "adapter").exists()


@pytest.mark.parametrize("method", ["lora", "full"])
def test_an_interrupted_training_ends_as_one_that_was_not(
    method: str, base: LocalModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"method": method, "learning_rate": 3e-3, "max_steps": 12}
    settings |= {"lora": {"rank": 4, "alpha": 8, "dropout": 0.1}}
    name = "adapter_model.safetensors" if method == "lora" else "model.safetensors"
    whole = train(base, tmp_path / "whole", **settings)
    for steps in (5, 4):  # twice: at step 5, and 4 steps after the checkpoint at 4
        interrupt(monkeypatch, base, tmp_path / "parts", steps, **settings)
    parts = train(base, tmp_path / "parts", **settings)
    assert (whole.resumed_from, parts.resumed_from) == (None, 6)
    assert parts.loss_curve == whole.loss_curve
    saved = [(tmp_path / run / "adapter" / name).read_bytes() for run in ("whole", "parts")]
    assert saved[0] == saved[1]


def test_a_training_killed_before_it_saved_only_saves(
    base: LocalModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    whole = train(base, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(adapter_module, "_save", killed)
        train(base, tmp_path / "parts")
    parts = train(base, tmp_path / "parts")
    assert (parts.resumed_from, parts.stopped_by) == (whole.steps, "steps")
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")


def test_a_checkpoint_of_other_rows_or_settings_is_not_used(
    base: LocalModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(monkeypatch, base, tmp_path / "a", 5)
    assert train(base, tmp_path / "a", ROWS[1:]).resumed_from is None
    interrupt(monkeypatch, base, tmp_path / "b", 5)
    assert train(base, tmp_path / "b", learning_rate=2e-2).resumed_from is None


@pytest.mark.parametrize("file", ["weights.safetensors", "optimizer.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_dropped_with_a_note(
    file: str, base: LocalModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = train(base, tmp_path / "whole")
    interrupt(monkeypatch, base, tmp_path / "parts", 5)
    damaged = sorted((tmp_path / "parts" / "checkpoints").glob(f"*/{file}"))
    assert damaged
    for path in damaged:
        path.write_bytes(path.read_bytes()[:-9])
    with caplog.at_level(logging.WARNING):
        parts = train(base, tmp_path / "parts")
    assert "damaged" in caplog.text
    assert parts.resumed_from is None
    assert parts.eval_loss == whole.eval_loss
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")


# --- what is saved -------------------------------------------------------------------------------


def test_what_is_saved_says_where_it_comes_from(base: LocalModel, tmp_path: Path) -> None:
    result = train(base, tmp_path, seed=3)
    folder = tmp_path / "adapter"
    about = json.loads((folder / "erasmo.json").read_text())
    assert about["provenance"] == {"dataset": "people"}
    assert about["base"] == {"name": base.name, "revision": base.revision}
    assert (about["seed"], about["settings"]["lora"]["rank"]) == (3, 4)
    assert {"torch", "transformers", "peft", "erasmo-dagster"} <= about["versions"].keys()
    assert set(about["files"]) == {path.name for path in folder.iterdir()} - {"erasmo.json"}
    assert TrainingResult.model_validate_json((folder / "training.json").read_text()) == result
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter"]  # no checkpoints, nothing temporary


def test_the_same_call_again_finds_its_result(base: LocalModel, tmp_path: Path) -> None:
    result = train(base, tmp_path)
    written = (tmp_path / "adapter" / "adapter_model.safetensors").stat().st_mtime_ns
    assert train(base, tmp_path) == result
    assert (tmp_path / "adapter" / "adapter_model.safetensors").stat().st_mtime_ns == written
    assert train(base, tmp_path, seed=1) != result
    assert (tmp_path / "adapter" / "adapter_model.safetensors").stat().st_mtime_ns != written


def test_a_full_disk_leaves_the_old_adapter(base: LocalModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Path) -> dict[str, str]:
        raise OSError(errno.ENOSPC, "No space left on device")

    train(base, tmp_path)
    before = weights(tmp_path)
    monkeypatch.setattr(adapter_module, "checksums", full)
    with pytest.raises(ErasmoError, match="free some space"):
        train(base, tmp_path, seed=1)
    assert weights(tmp_path) == before
    load_model(base, tmp_path / "adapter", "cpu")


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "adapter_config.json", "erasmo.json"])
def test_a_damaged_adapter_is_refused(file: str, base: LocalModel, tmp_path: Path) -> None:
    train(base, tmp_path)
    path = tmp_path / "adapter" / file
    data = bytearray(path.read_bytes())
    data[-3] ^= 1  # one bit
    path.write_bytes(data)
    with pytest.raises(ErasmoError, match=f"delete {tmp_path / 'adapter'}"):
        load_model(base, tmp_path / "adapter", "cpu")


def test_a_damaged_adapter_without_checksums_is_refused_too(base: LocalModel, tmp_path: Path) -> None:
    train(base, tmp_path)
    (tmp_path / "adapter" / "erasmo.json").unlink()
    load_model(base, tmp_path / "adapter", "cpu")
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(ErasmoError, match="does not load"):
        load_model(base, tmp_path / "adapter", "cpu")


def test_an_adapter_over_other_weights_is_refused(base: LocalModel, tmp_path: Path) -> None:
    train(base, tmp_path)
    other = resolve(f"path:{tiny_causal_lm(tmp_path / 'other', seed=1)}", tmp_path)
    with pytest.raises(ErasmoError, match="trained over revision"):
        load_model(other, tmp_path / "adapter", "cpu")


def test_a_folder_without_an_adapter_is_refused(base: LocalModel, tmp_path: Path) -> None:
    with pytest.raises(ErasmoError, match="no adapter"):
        load_model(base, tmp_path, "cpu")


def test_a_device_that_is_not_there_is_named(base: LocalModel, tmp_path: Path) -> None:
    import torch

    absent = "mps" if torch.cuda.is_available() else "cuda"
    with pytest.raises(ErasmoError, match=rf"{absent}.*one of auto, .*cpu"):
        train(base, tmp_path, device=absent)
