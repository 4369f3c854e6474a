"""The packed loss and the fused LoRA step: the same numbers and gradients as the model's own, with less kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from erasmo_dagster.method.adapter import fine_tune
from erasmo_dagster.method.base_models import LocalModel
from erasmo_dagster.method.engines import NotServedError
from erasmo_dagster.method.loading import load_base
from erasmo_dagster.method.lora import fuse_lora
from erasmo_dagster.method.losses import PackedLoss, PaddedLoss, TokenLoss
from erasmo_dagster.settings import AdapterSettings
from tests.tiny_models import ARCHITECTURES

pytestmark = pytest.mark.usefixtures("one_thread")

SERVED = [arch for arch in ARCHITECTURES if arch not in ("falcon", "bloom")]
SEQUENCES = [np.random.default_rng(n).integers(0, 250, n).tolist() for n in (2, 17, 9, 30, 3)]


def adapted(base: LocalModel, **options: Any) -> Any:
    """The model with LoRA, its upper matrices away from zero, so that all gradients count."""
    import torch
    from peft import LoraConfig, get_peft_model
    from torch.nn import Linear

    torch.manual_seed(0)
    model = load_base(base)[0]
    transposed = not any(isinstance(module, Linear) for module in model.base_model.modules())
    model = get_peft_model(
        model, LoraConfig(r=4, lora_alpha=6, target_modules="all-linear", fan_in_fan_out=transposed, **options)
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return model.train()


def gradients(model: Any, loss: PackedLoss | PaddedLoss) -> tuple[float, dict[str, Any]]:
    found = loss.backward(SEQUENCES, 1 / 50)
    return found, {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


def assert_same(first: tuple[float, dict[str, Any]], second: tuple[float, dict[str, Any]]) -> None:
    import torch

    assert first[0] == pytest.approx(second[0], rel=1e-5)
    assert first[1].keys() == second[1].keys()
    assert first[1]
    for name, gradient in first[1].items():
        assert torch.allclose(gradient, second[1][name], rtol=1e-3, atol=1e-5), name


@pytest.mark.parametrize("arch", SERVED)
def test_packed_and_fused_training_has_the_gradients_of_padded_batches(
    arch: str, models: dict[str, LocalModel]
) -> None:
    import torch

    device = torch.device("cpu")
    plain, packed = adapted(models[arch]), adapted(models[arch])
    assert fuse_lora(packed) > 5
    loss = PackedLoss(packed, device)
    assert_same(gradients(packed, loss), gradients(plain, PaddedLoss(plain, device)))
    assert loss.value(SEQUENCES) == pytest.approx(PaddedLoss(plain, device).value(SEQUENCES), rel=1e-5)


@pytest.mark.parametrize("arch", ["gpt2", "phi"])  # tied words; a head of its own with a bias
def test_all_weights_get_their_gradients(
    arch: str, models: dict[str, LocalModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from erasmo_dagster.method import losses

    monkeypatch.setattr(losses, "_CHUNK", 7)
    device = torch.device("cpu")
    plain, packed = (load_base(models[arch])[0].train().requires_grad_(True) for _ in range(2))
    assert_same(gradients(packed, PackedLoss(packed, device)), gradients(plain, PaddedLoss(plain, device)))


def test_checkpointed_activations_are_made_again_from_the_same_rows(models: dict[str, LocalModel]) -> None:
    import torch

    device = torch.device("cpu")
    plain, packed = adapted(models["llama"]), adapted(models["llama"])
    packed.enable_input_require_grads()
    enable = getattr(packed, "activation_checkpointing_enable", None) or packed.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    assert_same(gradients(packed, PackedLoss(packed, device)), gradients(plain, PaddedLoss(plain, device)))


def test_half_precision_gives_nearly_the_same(models: dict[str, LocalModel]) -> None:
    import torch

    device = torch.device("cpu")
    plain, packed = adapted(models["llama"]), adapted(models["llama"])
    expected, slopes = gradients(plain, PaddedLoss(plain, device))
    loss = PackedLoss(packed, device)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, rough = gradients(packed, loss)
    assert found == pytest.approx(expected, rel=0.02)
    whole, other = (torch.cat([part.flatten() for part in each.values()]) for each in (slopes, rough))
    assert float(torch.nn.functional.cosine_similarity(whole, other, dim=0)) > 0.99


@pytest.mark.parametrize("arch", ["falcon", "bloom"])
def test_a_model_of_another_attention_is_trained_in_padded_batches_and_says_so(
    arch: str, models: dict[str, LocalModel], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rows = [[f"age is {n}", "job is student"] for n in range(8)]
    settings = AdapterSettings(max_steps=2, device="cpu")
    result = fine_tune(
        rows, models[arch], settings, seed=0, out=tmp_path / "a", checkpoints=tmp_path / "c", provenance={}
    )
    assert result.steps == 2
    assert "Fine-tuning in padded batches" in capsys.readouterr().err


def test_layers_with_dropout_stay_as_peft_has_them(models: dict[str, LocalModel]) -> None:
    assert fuse_lora(adapted(models["llama"], lora_dropout=0.5)) == 0
    assert fuse_lora(adapted(models["llama"], use_dora=True)) == 0


# --- models that a packed loss would be wrong for --------------------------------------------------


def test_an_adapted_output_layer_is_trained_too(
    models: dict[str, LocalModel], capsys: pytest.CaptureFixture[str]
) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(load_base(models["phi"])[0], LoraConfig(r=4, target_modules=["q_proj", "lm_head"])).train()
    TokenLoss(model, torch.device("cpu"), "phi").backward(SEQUENCES, 1 / 50)
    assert "its output layer is a Linear" in capsys.readouterr().err
    found = {name: float(p.grad.abs().sum()) for name, p in model.named_parameters() if p.requires_grad}
    assert all(found[name] > 0 for name in found if "lora_B" in name)
    assert any("lm_head.lora_B" in name for name in found)


@pytest.mark.parametrize("name", ["final_logit_softcapping", "logit_scale"])
def test_what_a_model_does_to_its_logits_is_not_left_out(name: str, models: dict[str, LocalModel]) -> None:
    import torch

    model = load_base(models["llama"])[0]
    setattr(model.config, name, 30.0)
    with pytest.raises(NotServedError, match=name):
        PackedLoss(model, torch.device("cpu"))
    setattr(model.config, name, None)
    whole, head = model.forward, model.get_output_embeddings()

    def scaled(*given: Any, **options: Any) -> Any:  # under no name that is known
        out = whole(*given, **options)
        out.logits = out.logits * 1.01
        return out

    model.forward = scaled
    with pytest.raises(NotServedError, match="what it gives differs"):
        PackedLoss(model, torch.device("cpu"))
    assert head is model.get_output_embeddings()
    assert model.config._attn_implementation != "erasmo_layout"


def test_a_model_that_reads_no_text_without_a_mask_is_trained_in_padded_batches(
    models: dict[str, LocalModel], capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    device = torch.device("cpu")
    model = load_base(models["llama"])[0]
    expected = PaddedLoss(model, device).value(SEQUENCES)
    whole = model.forward

    def masked(*given: Any, attention_mask: Any = None, **options: Any) -> Any:
        return whole(*given, attention_mask=attention_mask.long(), **options)

    model.forward = masked
    loss = TokenLoss(model, device, "tiny")
    assert loss.pads
    assert "AttributeError" in capsys.readouterr().err
    assert loss.value(SEQUENCES) == pytest.approx(expected)


def test_a_long_text_ends_packing_before_it_is_learnt_from(
    models: dict[str, LocalModel], capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    device = torch.device("cpu")
    plain, packed = adapted(models["qwen2"]), adapted(models["qwen2"])
    loss = TokenLoss(packed, device, "qwen2")
    for layer in packed.get_base_model().base_model.layers:
        layer.self_attn.sliding_window = 24
    loss.backward([[1, 2, 3]], 1.0)
    before = loss.pads
    packed.zero_grad()
    found = loss.backward(SEQUENCES, 1 / 50)
    assert (before, loss.pads) == (False, True)
    assert "looks back over 24 tokens" in capsys.readouterr().err
    same = {name: p.grad for name, p in packed.named_parameters() if p.requires_grad}
    assert_same((found, same), gradients(plain, PaddedLoss(plain, device)))


def test_looking_at_the_loss_makes_no_gradient(models: dict[str, LocalModel], monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    model = load_base(models["gpt2"])[0].train().requires_grad_(True)
    loss = PackedLoss(model, torch.device("cpu"))
    made: list[Any] = []
    real = torch.zeros_like

    def counted(x: Any, **options: Any) -> Any:
        made.append(x)
        return real(x, **options)

    monkeypatch.setattr(torch, "zeros_like", counted)
    loss.value(SEQUENCES)
    assert not made
