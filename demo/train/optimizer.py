"""Muon for matrices, AdamW for the rest, one schedule for both, and a running average of the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


class Muon(torch.optim.Optimizer):
    """Momentum, then each matrix is replaced by its nearest orthogonal one (Newton-Schulz, batched by shape)."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, decay: float = 0.01) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            shapes: dict[torch.Size, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes.setdefault(parameter.shape, []).append(parameter)
            for parameters in shapes.values():
                self._update(parameters, group)

    def _update(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        gradient = torch.stack([parameter.grad.flatten(1) for parameter in parameters])
        state = self.state[parameters[0]]
        average = state.setdefault("average", torch.zeros_like(gradient))
        if len(average) != len(gradient):
            average = state["average"] = torch.zeros_like(gradient)
        average.lerp_(gradient, 1 - group["momentum"])
        update = orthogonalise(gradient.lerp(average, group["momentum"]))
        scale = max(1, update.shape[1] / update.shape[2]) ** 0.5
        for parameter, one in zip(parameters, update, strict=True):
            parameter.mul_(1 - group["lr"] * group["decay"])
            parameter.add_(one.view(parameter.shape), alpha=-group["lr"] * scale)


def orthogonalise(x: Tensor) -> Tensor:
    """Five Newton-Schulz iterations of odd degree 5 on [matrices, rows, columns]."""
    tall = x.shape[1] > x.shape[2]
    x = x.transpose(1, 2) if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.transpose(1, 2)
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.transpose(1, 2) if tall else x


class Optimizers:
    """Several optimizers stepped as one; their learning rates are scaled together."""

    def __init__(self, *optimizers: torch.optim.Optimizer) -> None:
        self.optimizers = optimizers
        self.peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]

    def scale(self, factor: float) -> None:
        for optimizer, peaks in zip(self.optimizers, self.peaks, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * factor

    def minimise(self, loss: Tensor, clipped: list[nn.Parameter], share: Callable[[], None] | None = None) -> None:
        """One step. Gradients of `clipped` are limited to norm 1; `share` averages gradients over processes."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        loss.backward()
        if share:
            share()
        if clipped:
            nn.utils.clip_grad_norm_(clipped, 1.0)
        for optimizer in self.optimizers:
            optimizer.step()


class AverageWeights:
    """An exponential average of a model's weights that forgets the first steps quickly."""

    def __init__(self, model: nn.Module, longest: float, warm_up: int) -> None:
        self.model, self.longest, self.warm_up = model, longest, warm_up
        self.weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        keep = min(self.longest, step / (step + self.warm_up))
        for name, tensor in self.model.state_dict().items():
            self.weights[name].lerp_(tensor, 1 - keep)
