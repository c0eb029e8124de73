"""The checks that free energy and draws of the latents belong to the energy.

Where hidden units have two states each, with or without a real number beside them, and the energy
is a sum over them, the energy gives their law and the free energy exactly. Elsewhere averages over
draws are compared, which show less.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cgrnn.layers.energy import Latents
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
)

_FELT = 1.5  # by how much a frame moves the logit of some hidden unit, in nats
_PAIRS = 4
_MOST_UNITS = 1024  # whose law is read off as many draws of them all
_MOST_NUMBERS = 1 << 17


class _Kind(NamedTuple):
    """Hidden units with the states `low` and `high`; `real` if each has a real number, too."""

    low: float
    high: float
    units: int
    real: bool


class _Law(NamedTuple):
    """Law of the latents given frames.

    Attributes:
        logits: of the upper state, `(K, H)`.
        free_energy: `-log Σ_l exp(-E(v, l))`, `(K,)`.
        lost: what rounding of the energies may have put on it.
        mean, precision: of the real numbers in either state, `(2, K, H)`.
    """

    logits: Tensor
    free_energy: Tensor
    lost: Tensor
    mean: Tensor
    precision: Tensor


def weak_coupling(specimen: Specimen, frames: Tensor) -> float:
    """A beta at which the couplings change the energies of frames `(m, K, V)` moderately."""
    v = repeated(frames, PILOT)
    start = specimen.density.annealed(0.0)
    # Drawn at beta = 0, where no unit is so seldom in a state that the draws would miss it.
    latents = start.sample_latents(v, specimen.random)
    before = start.energy(v, *latents)

    def exponents(beta: float) -> Tensor:
        change: Tensor = specimen.density.annealed(beta).energy(v, *latents) - before
        return change.flatten(1)

    return specimen.coupling(exponents, 0.6)


def agree(specimen: Specimen, beta: float, frames: Tensor) -> None:
    """Check `free_energy` and `sample_latents` by `energy`.

    Args:
        specimen: any.
        beta: where the couplings change the energies of the frames moderately.
        frames: `(m, K, V)`.
    """
    one, v, w = specimen[:1], frames[0, :1], frames[1, :1]
    at = one.at("annealed", beta)
    kind = _kind(at.density.sample_latents(repeated(v, DRAWS), at.random))
    free = kind and _law(one.at("annealed", 0.0), v, kind)
    law = kind and _law(at, v, kind)
    if kind is None or free is None or law is None:
        return _agree_on_average(specimen, beta, frames)
    _agree_on_free_energy(one, v, w, kind)
    _agree_on_free_energy(at, v, w, kind)
    many = repeated(v, max(DRAWS // 2, min(4 * DRAWS, _MOST_NUMBERS // kind.units)))
    _agree_on_draws(at, many, kind, law, None)
    for _ in range(TRIALS):
        if float((law.logits - free.logits).abs().max()) > _FELT or beta == 0:
            break
        beta = stronger(beta)
        law_there = _law(one.at("annealed", beta), v, kind)
        if law_there is None:
            break
        at, law = one.at("annealed", beta), law_there
    _agree_on_draws(at, many, kind, law, None)
    _agree_on_draws(at, many, kind, law, one.density.project(many))
    return None


def energies(at: Any, v: Tensor, latents: Latents) -> Tensor:
    """`E(v, l)` of frames `(K, V)` and draws of latents, `(n, K)`."""
    shape = latents[0].shape[:2]
    try:  # one frame for all draws spares their products
        result: Tensor = at.energy(v[None], *latents)
    except RuntimeError:
        result = v
    return result if result.shape == shape else at.energy(repeated(v, shape[0]), *latents)


def _kind(latents: Latents) -> _Kind | None:
    """What draws `(n, K, H)` look like; None where units have other states, or where the states of
    some forbid those of others."""
    h, *others = latents
    values = h[:PILOT].unique().tolist()
    if h.dim() != 3 or h.shape[-1] > _MOST_UNITS or len(values) != 2:
        return None
    if not bool(((h == values[0]) | (h == values[1])).all()):
        return None
    if others and not (len(others) == 1 and others[0].shape == h.shape and _real(others[0])):
        return None
    up = (h == values[1]).flatten(0, 1)
    first, rest = up[:, 0], up.T[1 : 1 + _PAIRS]
    pairs = [(first == a) & (other == b) for other in rest for a in (0, 1) for b in (0, 1)]
    if not all(bool(pair.any()) for pair in pairs):
        return None
    return _Kind(values[0], values[1], h.shape[-1], bool(others))


def _real(s: Tensor) -> bool:
    """Whether the draws of a latent look as if its states were all real numbers.

    Those of units with states in a row or on one side of 0 do not, nor those with a state of its
    own probability among the others.
    """
    s = s[:PILOT]
    distinct = s.unique().numel() / s.numel()
    if distinct > 0.99:
        return bool(s.min() < 0) and bool(s.max() > 0)
    return distinct < 0.1 and not bool((2 * s == (2 * s).round()).all())


def _law(at: Specimen, v: Tensor, kind: _Kind) -> _Law | None:
    """The law of the latents given frames `(K, V)`, read off single units; None where the energy is
    no sum over units, quadratic in their real numbers."""
    one = torch.diag_embed(v.new_ones(len(v), kind.units)).transpose(0, 1)  # (H, K, H)
    low = torch.full_like(one, kind.low)
    high = torch.where(one == 1, kind.high, low)

    def energy(h: Tensor, s: Tensor) -> Tensor:
        return energies(at.density, v, (h, s) if kind.real else (h,))

    zero = torch.zeros_like(one)
    start = energy(low[:1], zero[:1])

    def rises(s: Tensor) -> Tensor:
        return torch.stack([(energy(h, s) - start).T for h in (low, high)])

    middle = rises(zero)
    mass, slope, precision = -middle, torch.zeros_like(middle), torch.zeros_like(middle)
    mean, largest = torch.zeros_like(mass), start.abs() + middle.abs().amax((0, 2))
    weight = torch.ones_like(mass)  # of an error of an energy in the mass of a state
    if kind.real:
        up, down = rises(one), rises(-one)
        slope, precision = 0.5 * (up - down), up + down - 2 * middle
        if not bool((precision > 0).all()):
            return None
        mean, largest = -slope / precision, largest + torch.maximum(up, down).abs().amax((0, 2))
        weight = 1 + mean.abs() + 2 * mean**2 + 2 / precision
        mass = mass + 0.5 * (slope * -mean + math.log(2 * math.pi) - precision.log())

    coins = torch.empty_like(low[:4]).uniform_(generator=at.random) < 0.5
    h = torch.where(coins, kind.high, kind.low).to(low)
    s = torch.empty_like(h).normal_(generator=at.random)
    parts = middle + slope * s[:, None] + 0.5 * precision * s[:, None] ** 2
    terms = torch.where(h == kind.high, parts[:, 1], parts[:, 0])
    off = (energy(h, s) - start - terms.sum(-1)).abs()
    if not bool((off <= at.rounding * (1 + start.abs() + terms.abs().sum(-1))).all()):
        return None
    free = start[0] - mass.logsumexp(0).sum(-1)
    lost = 4 * torch.finfo(v.dtype).eps * largest[0] * weight.amax(0).sum(-1)
    return _Law(mass[1] - mass[0], free, lost, mean, precision)


def _agree_on_free_energy(at: Specimen, v: Tensor, w: Tensor, kind: _Kind) -> None:
    """`F(v) - F(w)` is that of `-log Σ_l exp(-E(v, l))`, summed exactly."""
    one, two = _law(at, v, kind), _law(at, w, kind)
    if one is None or two is None:  # energies too large to be taken apart
        return
    exact = one.free_energy - two.free_energy
    gave = at.density.free_energy(torch.stack([v, w]))
    gave = at.shaped("free_energy", gave, (2, *exact.shape))
    what, source = "F(v) - F(w) of two frames", "by the sum of exp(-energy) over latents"
    room = at.rounding * one.free_energy.abs() + one.lost + two.lost
    at.agree("free_energy", what, gave[0] - gave[1], exact, room, source)


def _agree_on_draws(at: Specimen, v: Tensor, kind: _Kind, law: _Law, projected: Any) -> None:
    """Draws given so many copies of a frame follow the law."""
    latents = at.density.sample_latents(v, at.random, projected)
    where = "given a frame" if projected is None else "given a frame and project(v)"
    up, share = latents[0] == kind.high, torch.sigmoid(law.logits)
    what, units = f"is {kind.high:g} {where}", Units(share, share * (1 - share), law.free_energy)
    at.agree_on_draws("sample_latents", what, up.to(v), units, "energy", binary=True)
    if kind.real:
        mean, precision = (torch.where(up, of[1], of[0]) for of in (law.mean, law.precision))
        x, zero = (latents[1] - mean) * precision.sqrt(), torch.zeros_like(share)
        what, units = f"of latent 1, standardised, {where}", Units(zero, zero + 1, law.free_energy)
        at.agree_on_draws("sample_latents", what, x, units, "energy", binary=False)


def _agree_on_average(specimen: Specimen, beta: float, frames: Tensor) -> None:
    """`F(w) - F(v) = log E_{l ~ p(l|w)}[exp(E(w, l) - E(v, l))]` of frames w, v, … `(m, K, V)`.

    The same and back again, from latents given v, is 0 in sum whatever F is: it sees draws that
    take no notice of the frame, which the first may miss.
    """
    at, n = specimen.density.annealed(beta), 2 * DRAWS
    w, v = (repeated(frame, n) for frame in frames[:2])
    latents = at.sample_latents(w, specimen.random)
    of_w, *of_others = (energies(at, frame, latents) for frame in frames)
    found = [log_mean(of_w - other) for other in of_others]
    expected, error = (torch.stack(x) for x in zip(*found, strict=True))

    # Drawn from products with the couplings, as samplers do.
    latents = at.sample_latents(v, specimen.random, specimen.density.project(v))
    of_w, of_v = (energies(at, frame, latents) for frame in frames[:2])
    back, its_error = log_mean(of_v - of_w)
    room = ERRORS_ALLOWED * torch.hypot(error[0], its_error) + RARE / n
    what, source = "log Z there and back between two frames", "by energy"
    nothing = torch.zeros_like(back)
    specimen.agree("sample_latents", what, expected[0] + back, nothing, room, source)

    free = specimen.shaped("free_energy", at.free_energy(frames), frames.shape[:-1])
    what, source = "F(w) - F(v) of two frames", "by energy and sample_latents"
    room = ERRORS_ALLOWED * error + RARE / n
    specimen.agree("free_energy", what, free[0] - free[1:], expected, room, source)
