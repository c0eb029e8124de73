"""Where the mass of a density lies: states that prove `log Z` from below, and its modes.

Annealing from a base meets the modes that lie on its paths. Those that it misses it cannot know of:
its chains agree with each other. Cheap chains from elsewhere find states of the density, and each
state counts: `log Z ≥ log Σ_{w in S} exp(-F(w))` for any set S of distinct binary frames, and
`log Z ≥ log Σ_{h in S} ∫ exp(-E(v, h)) dv` for any set of distinct states of the hidden units.
What is proven needs no chain to have mixed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from samplers import chain, cool

SHARE = 0.03  # of an estimate's work that is spent on looking for what it may miss
MODES = 4
SOFT = 0.05  # share of a mode's base that is a fair coin for every unit
NEGLIGIBLE = 12.0  # nats below what is proven: such a mode adds nothing
_LEAST = 60  # sweeps below which no chains are run
_CHAINS = (4, 48)
_LOOKS = 6  # times that the chains' frames are looked at
_SHARED, _CANDIDATES = 8, 256  # states that are tried at every density, out of so many
_CENTRES = 8  # draws of the latents by which the middle of a mode is found
# Times that the best hidden states are looked for among the neighbours of those there are.
_CLIMBS, _CLIMBERS = 4, 8
_SMALL = 32  # units of a frame up to which a factor of its precision matrix costs about a sweep
_KEPT = 64  # states that are kept for each density


@dataclass(frozen=True, eq=False)
class Found:
    """What a search found out about a flat batch of densities.

    Attributes:
        bound: proven lower bound of `log Z`, `(B,)` float64.
        states: frames, the best first: those met, or the means of the hidden states met where
            frames are continuous, `(K, B, V)`.
        log_mass: of each state, `-F(w)` or `log ∫ exp(-E(v, h)) dv`; -inf where there are fewer,
            `(K, B)` float64.
        exactly: whether the states are frames, each of the mass that stands beside it.
    """

    bound: Tensor
    states: Tensor
    log_mass: Tensor
    exactly: bool

    def __getitem__(self, rows: Any) -> Found:
        states, log_mass = self.states[:, rows], self.log_mass[:, rows]
        return Found(self.bound[rows], states, log_mass, self.exactly)

    def with_frames(self, density: Any, frames: Tensor) -> Found:
        """Also frames `(n, B, V)` that chains elsewhere came to, where they are binary."""
        if density.frames != "binary":
            return self
        every = torch.cat([self.states, frames.to(self.states)])
        log_mass = torch.cat([self.log_mass, -density.free_energy(frames).double()])
        found = _best(every, log_mass.masked_fill(~distinct(every), -torch.inf))
        return replace(found, bound=torch.maximum(found.bound, self.bound))


@torch.no_grad()
def search(
    density: Any,
    budget: int,
    generator: torch.Generator | None = None,
    starts: Tensor | None = None,
) -> Found | None:
    """Look for states of large mass by cheap chains.

    They begin at noise of any fullness, of the frame or where it is continuous of the hidden units;
    at the independent base; and where frames are binary also at the full and the empty one. Half of
    them run at `beta = 1` from the start. A quarter cool down along `density.tempered`, which finds
    wide modes, and a quarter begin at half the temperature, which finds deep ones; both then run at
    `beta = 1` too.

    Args:
        density: batch shape `(B,)`.
        budget: sweeps for each density, all chains together.
        generator: source of the draws.
        starts: further frames to begin at, `(n, V)`, such as data, or states found elsewhere.

    Returns:
        None for a density that does not say what its frames are, or whose frames are continuous and
        not integrated in closed form.
    """
    if density.frames is None:
        return None
    if density.frames == "continuous" and not hasattr(density, "hidden_log_mass"):
        return None
    met = [] if starts is None else [_every(density, starts)]
    if budget >= _LEAST:
        met += _chains(density, budget, generator, starts)
    if not met:
        met = [density.annealed(0.0).sample_base((1,), generator)]
    frames = torch.cat(met)
    if density.frames == "continuous":
        return _continuous(density, frames.flip(0), budget, generator)
    found = _binary(density, frames, generator)
    if budget < _LEAST or density.batch_shape[0] == 1:
        return found
    # Densities of a batch share their couplings, and often their modes.
    return found.with_frames(density, _every(density, spread(found, _SHARED)))


def _chains(
    density: Any, budget: int, generator: torch.Generator | None, starts: Tensor | None
) -> list[Tensor]:
    """Where cheap chains come to, `(chains, B, V)` each. Looking at a frame costs about a sweep."""
    v = _starts(density, min(max(budget // 60, _CHAINS[0]), _CHAINS[1]), generator, starts)
    sweeps = budget // len(v)
    looks = max(1, min(_LOOKS, sweeps // 8))
    half = max(2, (sweeps - looks) // 2)
    parts = list(v.tensor_split((len(v) // 4, len(v) // 2)))
    parts[0] = cool(density, parts[0], torch.linspace(0.3, 1.0, half).tolist(), generator)
    parts[1] = chain(density.at_temperature(0.5), parts[1], half, generator)
    parts[2] = chain(density, parts[2], half, generator)
    met = [torch.cat(parts)]
    for _ in range(looks - 1):
        met.append(chain(density, met[-1], max(1, half // looks), generator))
    met.append(chain(density.at_temperature(0.2), met[-1], 2, generator))
    return met


def _starts(
    density: Any, chains: int, generator: torch.Generator | None, starts: Tensor | None
) -> Tensor:
    """Frames to begin at, `(about chains, B, V)`: noise first, last what must not be cooled."""
    base = density.annealed(0.0).sample_base((max(1, chains // 8),), generator)
    noise = max(1, (3 * chains) // 4 - 1), density.batch_shape[0]
    if density.frames == "binary":
        begun = [_any_fullness(base, (*noise, density.visible_dim), generator), base]
        begun += [torch.ones_like(base[:1]), torch.zeros_like(base[:1])]
    else:
        h = _any_fullness(base, (*noise, density.hidden_dim), generator)
        begun = [density.mean_collapsed(h), base]
    if starts is not None:
        begun.append(_every(density, starts[: max(1, chains // 4)]))
    return torch.cat(begun)


def _any_fullness(
    like: Tensor, shape: tuple[int, ...], generator: torch.Generator | None
) -> Tensor:
    """States of zeros and ones, each with a share of ones that is drawn uniformly."""
    draws = like.new_empty(*shape[:-1], 1 + shape[-1]).uniform_(generator=generator)
    return (draws[..., 1:] < draws[..., :1]).to(draws.dtype)


def _every(density: Any, frames: Tensor) -> Tensor:
    """Frames `(n, V)` for every density of the batch, `(n, B, V)`."""
    like = density.visible_bias
    return frames.to(like)[:, None].expand(-1, density.batch_shape[0], -1)


def distinct(states: Tensor) -> Tensor:
    """Where a state of zeros and ones has not stood before it in its column, `(n, B)`.

    States `(n, B, units)` are told apart by a sum of random 64-bit integers, which is exact for
    equal states: none counts twice. Two that differ are taken for one with probability 2⁻⁶⁴, which
    is on the safe side.
    """
    random = torch.Generator().manual_seed(0)
    numbers = torch.randint(-(2**62), 2**62, (states.shape[-1],), generator=random)
    label = (states.bool() * numbers.to(states.device)).sum(-1)
    ranked, order = label.sort(dim=0, stable=True)
    first = torch.ones_like(ranked, dtype=torch.bool)
    first[1:] = ranked[1:] != ranked[:-1]
    return torch.empty_like(first).scatter_(0, order, first)


def log_sum_of_distinct(log_mass: Tensor, states: Tensor) -> Tensor:
    """`log Σ exp(log_mass)` over distinct states, `(B,)`: a proven lower bound of `log Z`."""
    return log_mass.masked_fill(~distinct(states), -torch.inf).logsumexp(0)


def _binary(density: Any, frames: Tensor, generator: torch.Generator | None) -> Found:
    log_mass = -density.free_energy(frames).double()
    log_mass = log_mass.masked_fill(~distinct(frames), -torch.inf)
    bound = log_mass.logsumexp(0)
    if hasattr(density, "hidden_log_mass"):
        h = density.sample_latents(frames, generator)[0]
        bound = torch.maximum(bound, log_sum_of_distinct(density.hidden_log_mass(h).double(), h))
    return replace(_best(frames, log_mass), bound=bound)


def _best(frames: Tensor, log_mass: Tensor) -> Found:
    """The frames of largest mass, and the mass of all."""
    best, index = log_mass.topk(min(_KEPT, len(frames)), 0)
    states = frames.gather(0, index[..., None].expand(-1, -1, frames.shape[-1]))
    return Found(log_mass.logsumexp(0), states, best, True)


def _continuous(
    density: Any, frames: Tensor, budget: int, generator: torch.Generator | None
) -> Found:
    h, units = density.sample_latents(frames, generator)[0], density.hidden_dim
    # A factor of a large precision matrix costs as much as that many sweeps.
    large = hasattr(density, "precision") and density.visible_dim > _SMALL
    affordable = budget // (1 + density.visible_dim**2 // units if large else 1)
    repeated = (~distinct(h)).double()
    index = repeated.argsort(dim=0, stable=True)[: max(4, affordable // 2)]
    h = h.gather(0, index[..., None].expand(-1, -1, units))
    log_mass = density.hidden_log_mass(h).double()
    climbers = min(_CLIMBERS, (affordable - len(h)) // (_CLIMBS * units))
    for _ in range(_CLIMBS if climbers > 0 else 0):
        flipped = _flipped(h, log_mass, climbers)
        h = torch.cat([h, flipped])
        log_mass = torch.cat([log_mass, density.hidden_log_mass(flipped).double()])
    log_mass = log_mass.masked_fill(~distinct(h), -torch.inf)
    best, order = log_mass.topk(min(_KEPT, len(h)), 0)
    top = h.gather(0, order[..., None].expand(-1, -1, units))
    return Found(log_mass.logsumexp(0), density.mean_collapsed(top), best, False)


def _flipped(h: Tensor, log_mass: Tensor, climbers: int) -> Tensor:
    """The best distinct states with each of their units turned over in turn, `(n, B, H)`."""
    _, order = log_mass.masked_fill(~distinct(h), -torch.inf).topk(climbers, 0)
    best = h.gather(0, order[..., None].expand(-1, -1, h.shape[-1]))
    return (best - torch.eye(h.shape[-1]).to(h)[:, None, None]).abs().flatten(0, 1)


def spread(found: Found, count: int) -> Tensor:
    """So many states of a batch at the most, the best first, each apart from those before it,
    `(n, V)`.

    States are apart that differ by more than half of what the batch's states differ by on average.
    """
    best = found.log_mass[:8] - found.bound
    order = best.flatten().argsort(descending=True)[:_CANDIDATES]
    states = found.states[:8].flatten(0, 1)[order]
    apart = 0.5 * (states - states.mean(0)).norm(dim=-1).mean()
    chosen = [states[0]]
    for state in states[1:]:
        if len(chosen) < count and (torch.stack(chosen) - state).norm(dim=-1).min() > apart:
            chosen.append(state)
    return torch.stack(chosen)


@torch.no_grad()
def bases(
    density: Any, found: Found, generator: torch.Generator | None = None, modes: int = MODES
) -> Tensor:
    """Biases of an independent base around each mode, `(modes, B, V)`.

    The best state is the first mode; the best of those that lie outside of it the second, and so
    on. A density with fewer has its first one again.

    A mode's base has the mean of the frame given the latents of its state, softened so that no unit
    is certain; or for continuous frames that mean and the precisions Λ̃.
    """
    log_mass, made = found.log_mass.clone(), list[Tensor]()
    proven = found.log_mass.logsumexp(0)
    batch = torch.arange(density.batch_shape[0], device=log_mass.device)
    for _ in range(modes):
        best, index = log_mass.max(0)
        state = found.states[index, batch]
        bias = _base(density, state, generator)
        if made:
            lost = ~(best > proven - NEGLIGIBLE)
            bias = torch.where(lost[:, None], made[0], bias)
        made.append(bias)
        log_mass = log_mass.masked_fill(_near(density, found.states, bias), -torch.inf)
        log_mass[index, batch] = -torch.inf
    return torch.stack(made)


def _base(density: Any, state: Tensor, generator: torch.Generator | None) -> Tensor:
    if density.frames == "continuous":
        return density.precision_diag * state
    latents = density.sample_latents(state.expand(_CENTRES, *state.shape), generator)
    mean = density.mean_visible(latents).mean(0)
    return torch.logit((1 - 2 * SOFT) * mean + SOFT)


def _near(density: Any, states: Tensor, bias: Tensor) -> Tensor:
    """Which states `(K, B, V)` a base accounts for."""
    if density.frames == "continuous":
        distance = density.precision_diag * (states - bias / density.precision_diag) ** 2
        return distance.sum(-1) < states.shape[-1]
    log_prob = (states * bias - torch.nn.functional.softplus(bias)).sum(-1)
    return log_prob > -states.shape[-1] * 0.6931471805599453
