"""The identities that hold between the methods of an energy density, each as a check.

`E` is the energy, `F` the free energy, `l` the latents, `v` and `w` frames. Where an identity fails
the class is refused with a ValueError (`Specimen.agree`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from cgrnn.layers.energy import EnergyDensity, Latents
from evaluation.latent_laws import energies
from evaluation.specimen import (
    DRAWS,
    ERRORS_ALLOWED,
    PILOT,
    RARE,
    TRIALS,
    Specimen,
    Units,
    log_mean,
    repeated,
    stronger,
    weaker,
)

_MOST_NUMBERS = 1 << 18
_FELT = 0.7  # deviations by which latents move the mean of a unit of the frame


def paths(specimen: Specimen) -> None:
    """Both paths end at the density itself, and products before annealing serve all of them."""
    density, v = specimen.density, specimen.base(3)
    projected, own = density.project(v), density.free_energy(v)
    for path in ("annealed", "tempered"):
        end = specimen.at(path, 1.0).density.free_energy(v)
        specimen.agree(path, "F(v) at beta = 1", end, own, 0.0, "that of the density itself")
        for beta in (0.0, 0.5):
            at, what = specimen.at(path, beta).density, f"F(v, project(v)) of {path}({beta:g})"
            given, alone = at.free_energy(v, projected), at.free_energy(v)
            specimen.agree("free_energy", what, given, alone, 0.0, "F(v)")


def base(specimen: Specimen, path: str) -> None:
    """`log Z` and draws at `beta = 0` are those of `exp(-F)`."""
    at, where = specimen.at(path, 0.0).density, f"{path}(0)"
    units = specimen.units(at.free_energy, "free_energy", where)
    states = "sum of exp(-free_energy) over {0, 1}^V"
    if specimen.frames == "continuous":
        states = "integral of exp(-free_energy)"
    log_z, source = at.base_log_partition(), f"the {states}"
    specimen.agree("base_log_partition", f"log Z of {where}", log_z, units.log_mass, 0.0, source)
    v = at.sample_base((DRAWS,), specimen.random)
    specimen.agree_on_frames("sample_base", f"of {where}", v, units, "exp(-free_energy)")


def base_of_undeclared(specimen: Specimen) -> None:
    """How `log Z` at `beta = 0` follows the biases, where no one says what to sum over.

    `log Z' - log Z = F - F'` where only the hidden biases differ. Between the bases `q` of
    "tempered" and `p` of "annealed", which differ by the biases of the frame,
    `log Z_p - log Z_q = log E_{v ~ q}[exp(F_q(v) - F_p(v))]`.
    """
    density, v = specimen.density, specimen.base(1)
    if "hidden_bias" in density.contextual:
        other = replace(density, hidden_bias=density.hidden_bias.flip(0))
        one, two = density.annealed(0.0), other.annealed(0.0)
        rise = two.base_log_partition() - one.base_log_partition()
        fall = (one.free_energy(v) - two.free_energy(v))[0]
        what = "the rise of log Z at beta = 0 by other hidden biases"
        specimen.agree("base_log_partition", what, rise, fall, 0.0, "by free_energy")

    def bases(share: float) -> tuple[Any, Any]:
        some = replace(density, visible_bias=density.visible_bias * share)
        return some.tempered(0.0), some.annealed(0.0)

    def exponents(share: float, draws: int = PILOT) -> Tensor:
        tempered, annealed = bases(share)
        v = tempered.sample_base((draws,), specimen.random)
        difference: Tensor = tempered.free_energy(v) - annealed.free_energy(v)
        return difference

    share = specimen.coupling(exponents)
    tempered, annealed = bases(share)
    rise = annealed.base_log_partition() - tempered.base_log_partition()
    expected, error = log_mean(exponents(share, DRAWS))
    what, source = "the rise of log Z at beta = 0 by visible_bias", "by free_energy and sample_base"
    room = ERRORS_ALLOWED * error + RARE / DRAWS
    specimen.agree("base_log_partition", what, rise, expected, room, source)


def frames_given_latents(specimen: Specimen, beta: float, frames: Tensor) -> float:
    """Means and draws of a frame given latents are those of `exp(-E(v, l))`.

    Args:
        specimen: its frames are declared.
        beta: where the couplings change the energies of `frames` moderately.
        frames: `(m, K, V)`.

    Returns:
        A beta at which the units of a frame feel the latents.
    """
    start = specimen.at("annealed", 0.0)
    some = start.density.sample_latents(repeated(frames[0], PILOT), specimen.random)
    change = energies(specimen.density, frames[0], some) - energies(start.density, frames[0], some)
    chosen = change.abs().argmax(0), torch.arange(len(change[0]), device=change.device)
    latents = tuple(one[chosen] for one in some)  # which are not all zeros, say
    free = _given_latents(start, latents)
    _given_latents(specimen, latents)
    for _ in range(TRIALS):
        at = specimen.at("annealed", beta)
        units = _given_latents(at, latents)
        moved = (units.mean - free.mean).abs() / free.variance.sqrt()
        if float(moved.max()) > _FELT or beta == 0:
            break
        beta = stronger(beta)
    given = tuple(repeated(one, DRAWS) for one in latents)
    for there, law in ((start, free), (at, units)):
        v = there.density.sample_visible(given, specimen.random)
        there.agree_on_frames("sample_visible", "given latents", v, law, "energy")
    noise = at.density.sample_noise(specimen.random)
    at.check_frames("sample_noise", noise, at.deviations.shape)
    return beta


def _given_latents(at: Specimen, latents: Latents) -> Units:
    """The units of a frame given latents, with which `mean_visible` must agree."""

    def energy(v: Tensor) -> Tensor:
        result: Tensor = at.density.energy(v, *(repeated(one, len(v)) for one in latents))
        return result

    where = "given latents"
    units = at.units(energy, "energy", where)
    largest = float(energy(torch.zeros_like(units.mean)[None]).abs().max())
    lost = 16 * torch.finfo(units.mean.dtype).eps * largest  # by differences of energies
    scale = torch.ones_like(units.mean) if at.frames == "binary" else units.variance.sqrt()
    mean, room = at.density.mean_visible(latents), (at.rounding + lost) * scale
    at.agree("mean_visible", f"a unit {where}", mean, units.mean, room, "energy")
    return units


def frames_of_undeclared(specimen: Specimen) -> None:
    """Draws `v` given latents `l` and given `m` are those of one energy.

    `log E_{v ~ p(v|l)}[exp(E(v, l) - E(v, m))] + log E_{v ~ p(v|m)}[exp(E(v, m) - E(v, l))] = 0`,
    whatever the frames are.
    """
    start = specimen.density.annealed(0.0)
    pair = [start.sample_latents(v, specimen.random) for v in specimen.base(2)]

    def exponents(beta: float, draws: int = PILOT) -> Tensor:
        at = specimen.density.annealed(beta)
        one, two = (tuple(repeated(part, draws) for part in latents) for latents in pair)
        v, w = (at.sample_visible(latents, specimen.random) for latents in (one, two))
        there, back = at.energy(v, *one) - at.energy(v, *two), at.energy(w, *two)
        return torch.cat([there, back - at.energy(w, *one)], 1)

    beta = specimen.coupling(exponents)
    value, error = (x.view(2, -1) for x in log_mean(exponents(beta, 2 * DRAWS)))
    room = ERRORS_ALLOWED * error.square().sum(0).sqrt() + RARE / DRAWS
    what, source = "log Z there and back between two latents", "by energy"
    specimen.agree("sample_visible", what, value.sum(0), torch.zeros_like(room), room, source)

    latents = tuple(repeated(part, DRAWS) for part in pair[0])
    of_base, free, drawn = (
        specimen.base(DRAWS),
        start.sample_visible(latents, specimen.random),
        specimen.density.annealed(beta).sample_visible(latents, specimen.random),
    )
    what, source = "the mean of a unit at beta = 0", "by sample_base"
    room = ERRORS_ALLOWED * torch.hypot(_error_of_mean(of_base), _error_of_mean(free))
    specimen.agree("sample_visible", what, free.mean(0), of_base.mean(0), room, source)
    what, source = "a unit given latents", "the mean of sample_visible"
    mean, room = specimen.density.annealed(beta).mean_visible(pair[0]), _error_of_mean(drawn)
    specimen.agree("mean_visible", what, mean, drawn.mean(0), ERRORS_ALLOWED * room, source)


def gibbs_step(specimen: Specimen, betas: Iterable[float]) -> None:
    """A class's own sweep draws the latents, then the frame."""
    if type(specimen.density).gibbs_step is EnergyDensity.gibbs_step:
        return
    draws = max(DRAWS, min(16 * DRAWS, _MOST_NUMBERS // specimen.density.hidden_dim))
    v = repeated(specimen.base(1)[0], draws)
    for beta in betas:
        at = specimen.density.annealed(weaker(beta))
        swept = at.gibbs_step(v, specimen.random, specimen.density.project(v))
        specimen.shaped("gibbs_step", swept, v.shape)
        mean = at.mean_visible(at.sample_latents(v, specimen.random))
        room = ERRORS_ALLOWED * torch.hypot(_error_of_mean(swept), _error_of_mean(mean))
        what, source = "the mean of a unit after a sweep", "by sample_latents and mean_visible"
        specimen.agree("gibbs_step", what, swept.mean(0), mean.mean(0), room, source)


def _error_of_mean(v: Tensor) -> Tensor:
    """Standard error of the mean of draws, with what rare ones may add."""
    rare = RARE / ERRORS_ALLOWED / len(v) * (v.amax() - v.amin())
    return v.std(0) / math.sqrt(len(v)) + rare
