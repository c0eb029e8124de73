"""The check that the masses of the hidden units' states belong to the other methods."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

from evaluation.specimen import ERRORS_ALLOWED, RARE, Specimen, Units, repeated

_DRAWS, _STATES = 512, 2
_MOST_NUMBERS = 1 << 18
_FELT, _TRIALS = 0.1, 4  # by how much the units of a frame, or their means, depend on couplings


class _Frames(NamedTuple):
    """A frame of one unit more or less given hidden units, in steps of the specimen.

    Attributes:
        density: under which it is.
        log_mass: `log ∫ exp(-U(v)) dv`, `(K,)`.
        mean: `(K, V)`.
        factor: L, of the precision `L Lᵀ`, `(K, V, V)`.
        felt: how much they are changed by couplings.
    """

    density: Any
    log_mass: Tensor
    mean: Tensor
    factor: Tensor
    felt: float


def agree(specimen: Specimen) -> bool:
    """Check `hidden_log_mass(h)` of some states, and what else is known of frames given them.

    A continuous frame given `h` in {0, 1}^H has the log density `-U(v)` with
    `U(v) = F(v) - Σ_i h_i a_i - softplus(a_i)`, a the hidden units' logits at `v`. If frames are
    Gaussian given the hidden units, its mass, mean and covariance are read off V² frames.

    Returns:
        Whether all was checked that can be: couplings that are too small hide a fault.
    """
    specimen = specimen[:1]
    base, v = specimen.density.annealed(0.0), specimen.base(1)[0]
    draws, *others = base.sample_latents(repeated(v, _DRAWS), specimen.random)
    outside = draws[(draws != 0) & (draws != 1)]
    if not outside.numel():
        _agree_on_base(specimen, base, draws, v)
    if specimen.frames == "binary":
        if not others:
            _agree_on_energy(specimen, draws[:_STATES])
    elif outside.numel():
        raise ValueError(
            f"{specimen.name}.sample_latents: gave a hidden unit the value {float(outside[0]):.6g},"
            " should have given 0 or 1: hidden_log_mass is summed over these; with frames = None "
            "log Z is estimated by annealing without it"
        )
    elif reads_all(specimen.density) and v.dtype == torch.float64:
        for h in draws[:_STATES]:
            frames = _felt(specimen, h)
            if frames is None:
                return False
            _agree_on_state(specimen, h, frames)
    return bool(specimen.density.weight.any())


def reads_all(density: Any) -> bool:
    """Whether V² frames are cheap; else continuous ones are checked at `beta = 0` alone."""
    return density.visible_dim**2 * density.hidden_dim <= _MOST_NUMBERS


def _agree_on_base(specimen: Specimen, base: Any, draws: Tensor, v: Tensor) -> None:
    """At `beta = 0` the mass of a state is `Z` times its probability."""
    logits, h = base.hidden_logits(v), draws[:_STATES]
    probability = torch.sigmoid(logits)
    room = ERRORS_ALLOWED * (probability * (1 - probability) / _DRAWS).sqrt() + RARE / _DRAWS
    what = "the probability of a hidden unit at beta = 0"
    specimen.agree("hidden_logits", what, probability, draws.mean(0), room, "by sample_latents")
    expected = base.base_log_partition() + (h * logits - softplus(logits)).sum(-1)
    what, source = "a state at beta = 0", "by base_log_partition and hidden_logits"
    mass = base.hidden_log_mass(h).to(expected)
    specimen.agree("hidden_log_mass", what, mass, expected, 0.0, source)


def _agree_on_energy(specimen: Specimen, h: Tensor) -> None:
    """`log mass(h) = log Σ_v exp(-E(v, h))` of binary frames, but for a constant."""
    exact = []
    for state in h:

        def energy(v: Tensor, state: Tensor = state) -> Tensor:
            result: Tensor = specimen.density.energy(v, repeated(state, len(v)))
            return result

        exact.append(specimen.units(energy, "energy", "given hidden units").log_mass)
    rises, mass = torch.stack(exact).diff(dim=0), specimen.density.hidden_log_mass(h)
    what, source = "one state over another", "the sum of exp(-energy) over {0, 1}^V"
    room = specimen.rounding * torch.stack(exact).abs().max()
    specimen.agree("hidden_log_mass", what, mass.to(rises).diff(dim=0), rises, room, source)


def _felt(specimen: Specimen, h: Tensor) -> _Frames | None:
    """The frames given a state, under couplings that are strong enough to show; None where their
    mass is not finite."""
    found, beta = None, 1.0
    for _ in range(_TRIALS):
        here = _frames(specimen, specimen.density.annealed(beta), h)
        if here is None or (found is not None and here.felt < 1.5 * found.felt):
            break
        found, beta = here, 4 * beta
        if found.felt > _FELT:
            break
    return found


def _frames(specimen: Specimen, density: Any, h: Tensor) -> _Frames | None:
    def energy(v: Tensor) -> Tensor:
        a = density.hidden_logits(v)
        result: Tensor = density.free_energy(v) - (h * a - softplus(a)).sum(-1)
        return result

    # At zero, along each unit, and along each pair.
    steps = specimen.deviations
    single = torch.diag_embed(steps).transpose(0, 1)
    pairs = (single[:, None] + single).flatten(0, 1)
    at_zero = energy(torch.zeros_like(single[:1]))[0]
    up, down, both = (energy(v) - at_zero for v in (single, -single, pairs))
    slope, precision = 0.5 * (up - down).T, both.view(len(up), *up.shape) - up[:, None] - up
    precision = precision.permute(2, 0, 1)
    factor, failed = torch.linalg.cholesky_ex(precision)
    if bool(failed.any()):
        return None
    half = torch.linalg.solve_triangular(factor, -slope[..., None], upper=False)
    mean = torch.linalg.solve_triangular(factor.mT, half, upper=True)[..., 0]
    diagonal = factor.diagonal(dim1=-2, dim2=-1)
    volume = (0.5 * math.log(2 * math.pi) + steps.log() - diagonal.log()).sum(-1)
    log_mass = volume + 0.5 * half[..., 0].square().sum(-1) - at_zero
    deviations = precision.diagonal(dim1=-2, dim2=-1).sqrt()
    correlation = precision / (deviations[:, None] * deviations[..., None])
    felt = float((correlation - torch.diag_embed(torch.ones_like(steps))).abs().max())
    if felt < specimen.rounding:  # of a class in which units do not feel each other
        felt = float((mean - density.visible_bias * steps).abs().max())
    return _Frames(density, log_mass, mean, factor, felt)


def _agree_on_state(specimen: Specimen, h: Tensor, frames: _Frames) -> None:
    """Check mass and draws of one state `(K, H)`."""
    mass = frames.density.hidden_log_mass(h).to(frames.log_mass)
    source = "the integral of exp(-free_energy) times the state's probability, if Gaussian"
    specimen.agree("hidden_log_mass", "a state", mass, frames.log_mass, 0.0, source)
    if hasattr(frames.density, "mean_collapsed"):
        gave, right = frames.density.mean_collapsed(h).to(frames.mean), frames.mean
        source, room = "the mean of that law", specimen.rounding * specimen.deviations
        right = right * specimen.deviations
        specimen.agree("mean_collapsed", "a unit of a frame", gave, right, room, source)
    factored = specimen.density.visible_dim**3
    many = repeated(h, max(_DRAWS, min(16 * _DRAWS, (1 << 22) // factored)))
    v = frames.density.sample_collapsed(many, specimen.random) / specimen.deviations
    x, zero = (frames.factor.mT @ (v - frames.mean)[..., None])[..., 0], 0 * frames.mean
    what, source = "given hidden units, standardised", "free_energy and hidden_logits"
    free = Units(zero, zero + 1, frames.log_mass)
    specimen.agree_on_draws("sample_collapsed", what, x, free, source, binary=False)
