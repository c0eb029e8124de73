"""A check that what a layer's latents feed back is the expectation that its density gives."""

from __future__ import annotations

import copy
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn

_ROWS, _ACTIVE, _DEVIATION = 8, 3, 0.5
_TOLERANCE = 1e-6
_kept: WeakSet[type] = WeakSet()


def check(layer: Any) -> None:
    """Refuse a layer whose `drive` does not feed back `layer(u).activation(v)`. Once for a class.

    A scan over time takes `σ(logits + U₂ u) ⊙ slabs` from `drive` for the expected latents. That is
    right where hidden units are 0 or 1 and the context moves them by their biases alone.

    It is tried on a copy in double precision on the CPU, with random parameters and contexts; the
    layer, its gradients and the global generators stay as they are.

    Args:
        layer: a `ConditionalRBM` with a context.

    Raises:
        ValueError: the two differ.
        TypeError: the layer cannot be copied.
    """
    kind = type(layer)
    if kind in _kept:
        return
    _kept.add(kind)  # at once: the copy's own `drive` comes here, too
    try:
        with torch.no_grad(), torch.random.fork_rng([]):
            _check(layer)
    except BaseException:
        _kept.discard(kind)
        raise


def _check(layer: Any) -> None:
    name, random = type(layer).__name__, torch.Generator().manual_seed(0)
    copied = _copied(layer)
    for parameter in copied.parameters():
        # Sums over the longest dimension are then about as large whatever the layer's size.
        size = max(parameter.shape) if parameter.dim() > 1 else 1
        parameter.normal_(std=_DEVIATION * max(1.0, size / 4) ** -0.5, generator=random)
    u = torch.empty(_ROWS, copied.context_dim, dtype=torch.float64).normal_(generator=random)
    density = copied(u)
    v = _frames(density, random)
    drive = copied.drive(v, sample=False)
    fed = torch.sigmoid(drive.logits + u @ drive.weight.T) * drive.slabs
    expected: Tensor = density.activation(v)
    off = ((fed - expected).abs() / (1 + expected.abs())).nan_to_num(nan=torch.inf)
    worst = int(off.argmax())
    if float(off.flatten()[worst]) > _TOLERANCE:
        raise ValueError(
            f"{name}.drive: feeds back {float(fed.flatten()[worst]):.6g} where "
            f"{type(density).__name__}.activation gives {float(expected.flatten()[worst]):.6g}: "
            "drive takes hidden units for 0 or 1, with logits that the context moves by its share "
            'of hidden_bias alone; give the layer another `drive`, or the model feedback="visible"'
        )


def _copied(layer: nn.Module) -> Any:
    try:
        return copy.deepcopy(layer).cpu().double()
    except Exception as error:
        reason = " ".join(str(error).split())
        raise TypeError(
            f"{type(layer).__name__}: cannot be copied ({reason}), and what its latents feed back "
            "is checked on a copy; keep in its attributes what copy.deepcopy can copy"
        ) from error


def _frames(density: Any, random: torch.Generator) -> Tensor:
    """Frames of the density's kind with few units that are not 0, so that no hidden unit is pushed
    to where its expectation tells nothing."""
    v: Tensor = density.sample_noise(random)
    if density.frames is None:
        return v
    active = torch.empty_like(v).uniform_(generator=random) * v.shape[-1] < _ACTIVE
    return v * active if density.frames == "continuous" else active.to(v)
