"""peft's low-rank layers in one step each: less is kept for the way back, and nothing is computed twice."""

from __future__ import annotations

from functools import cache, partial
from typing import Any


def fuse_lora(model: Any) -> int:
    """Have the LoRA layers of a peft model compute ``x W' + s (x A') B'`` in one differentiable step.

    The same function with the same gradients (Hu et al., arXiv 2106.09685), for one adapter over frozen weights in
    fp32, without dropout. Layers of another kind stay as they are. Gives the number of layers that were taken.
    """
    from peft.tuners.lora import Linear

    taken = 0
    for module in model.modules():
        if isinstance(module, Linear) and _is_plain(module):
            module.forward = partial(_forward, module)
            taken += 1
    return taken


def _is_plain(module: Any) -> bool:
    from torch.nn import Identity, Linear
    from transformers.pytorch_utils import Conv1D

    name, *others = module.active_adapters
    base = module.base_layer
    return (
        not others
        and not module.disable_adapters
        and not module.merged
        and not module.use_dora.get(name, False)
        and not module.lora_bias.get(name, False)
        and isinstance(module.lora_dropout[name], Identity)
        and type(base) in (Linear, Conv1D)
        and base.weight.element_size() == 4
        and not base.weight.requires_grad
        and (base.bias is None or not base.bias.requires_grad)
    )


def _forward(module: Any, x: Any) -> Any:
    from torch.nn import Linear

    (name,) = module.active_adapters
    base = module.base_layer
    weight = base.weight if type(base) is Linear else base.weight.t()  # GPT-2 and its like keep theirs transposed
    down, up = module.lora_A[name].weight, module.lora_B[name].weight
    y = _step().apply(x.reshape(-1, x.shape[-1]), weight, base.bias, down, up, module.scaling[name])
    return y.view(*x.shape[:-1], -1)


@cache
def _step() -> Any:
    """The differentiable step; torch is not imported before it is needed."""
    import torch

    class LoraStep(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, weight: Any, bias: Any, down: Any, up: Any, scale: float) -> Any:
            low = x @ down.t()
            y = x @ weight.t() if bias is None else torch.addmm(bias, x, weight.t())
            y.addmm_(low, up.t(), alpha=scale)
            ctx.save_for_backward(x, weight, down, up, low)
            ctx.scale = scale
            return y

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            (dy,) = gradients
            x, weight, down, up, low = ctx.saved_tensors
            dlow = (dy @ up).mul_(ctx.scale)
            dx = None
            if ctx.needs_input_grad[0]:
                dx = (dy @ weight).addmm_(dlow, down)
            return dx, None, None, dlow.t() @ x, (dy.t() @ low).mul_(ctx.scale), None

    return LoraStep
