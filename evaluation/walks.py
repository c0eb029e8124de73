"""The paths of annealed importance sampling: their levels, and the chains that go along them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from evaluation import schedules
from evaluation.schedules import Schedule
from samplers import fused

_PATHS = ("annealed", "tempered")
_PILOT_LEVELS, _PILOT_ROWS, _PILOT_CHAINS, _PILOT_SHARE = 100, 512, 16, 0.05

_LEAST_SPREAD = 0.01
_COLLAPSED_VISIBLE = 32

Progress = Callable[[int], None]


class Weighed(NamedTuple):
    """What chains come to along a path.

    Attributes:
        log_weights: `(chains, B)` float64.
        frames: the state that was weighed last, `(chains, B, V)`: with the weights these are
            weighted draws from the density.
    """

    log_weights: Tensor
    frames: Tensor


@dataclass(frozen=True)
class Walk:
    """One path with its levels, and the chains that go along it, up or down.

    The path is "annealed" or "tempered", as the density has them; or it comes from independent
    bases of its own, whose biases fade as b̃_v and the couplings of "tempered" come up.
    """

    path: str
    betas: list[float]
    collapsed: bool
    chains: int
    share: float = 0.0

    def at(self, densities: Any, level: int, bases: Tensor | None = None) -> Any:
        """The densities at a level; `bases` are the biases of their bases, `(B, V)`."""
        beta = self.betas[level]
        if bases is None:
            return getattr(densities, self.path)(beta)
        couplings, slabs, _ = densities.path_factors(self.path, beta)
        scaled = densities._scaled(couplings, slabs, 1.0)
        bias = torch.lerp(bases, densities.visible_bias, beta)
        return replace(scaled, visible_bias=bias)

    def fused(self, densities: Any) -> bool:
        """Whether the compiled kernel makes the sweeps."""
        return not self.collapsed and fused.knows(densities)

    def levels(self, densities: Any, bases: Tensor | None = None) -> list[tuple[float, ...]]:
        """The factors of every level, as the kernel takes them."""
        factors = [densities.path_factors(self.path, beta) for beta in self.betas]
        if bases is None:
            return list(factors)
        return [(*f[:2], beta, 1 - beta) for f, beta in zip(factors, self.betas, strict=True)]

    def fused_up(
        self,
        densities: Any,
        generator: torch.Generator | None,
        progress: Progress | None = None,
        bases: Tensor | None = None,
    ) -> Weighed:
        """What `up` gives, for all densities and chains."""
        base = self.at(densities, 0, bases).base_log_partition().double()
        levels = self.levels(densities, bases)
        found = fused.anneal(densities, self.chains, levels, generator, None, progress, bases)
        return Weighed(base + found.log_weights, found.frames)

    def fused_down(
        self,
        densities: Any,
        v: Tensor,
        generator: torch.Generator | None,
        progress: Progress | None,
    ) -> Weighed:
        """What `down` gives, for all densities and chains."""
        base = self.at(densities, 0).base_log_partition().double()
        levels = self.levels(densities)[::-1]
        found = fused.anneal(densities, self.chains, levels, generator, v, progress)
        return Weighed(base - found.log_weights, found.frames)

    @torch.no_grad()  # a thread has a gradient mode of its own
    def up(
        self,
        densities: Any,
        chains: int,
        generator: torch.Generator,
        bases: Tensor | None = None,
        rises: list[Tensor] | None = None,
    ) -> Weighed:
        """Chains from the base; `rises` gets the parts of their log-weights."""
        before = self.at(densities, 0, bases)
        v = before.sample_base((chains,), generator)
        log_weights = before.base_log_partition().double().expand(chains, -1).clone()
        for level in range(1, len(self.betas)):
            after = self.at(densities, level, bases)
            projected = after.project(v)
            rise = before.free_energy(v, projected) - after.free_energy(v, projected)
            log_weights += rise
            if rises is not None:
                rises.append(rise)
            if level < len(self.betas) - 1:
                v = self._sweep(after, v, generator, projected)
            before = after
        return Weighed(log_weights, v)

    @torch.no_grad()
    def down(self, densities: Any, v: Tensor, generator: torch.Generator) -> Weighed:
        """Chains that start at draws of the densities themselves."""
        after = self.at(densities, -1)
        base = self.at(densities, 0).base_log_partition()
        log_weights = base.double().expand(len(v), -1).clone()
        for level in range(len(self.betas) - 2, -1, -1):
            before = self.at(densities, level)
            projected = before.project(v)
            log_weights += before.free_energy(v, projected) - after.free_energy(v, projected)
            if level > 0:
                v = self._sweep(before, v, generator, projected)
            after = before
        return Weighed(log_weights, v)

    def _sweep(self, density: Any, v: Tensor, generator: torch.Generator, projected: Any) -> Tensor:
        step = density.collapsed_step if self.collapsed else density.gibbs_step
        after: Tensor = step(v, generator, projected)
        return after


def plan(
    flat: Any,
    chains: int,
    levels: int,
    generator: torch.Generator | None,
    schedule: Schedule,
    collapsed: bool | None,
) -> list[Walk]:
    """The paths with their levels, chains and shares."""
    if levels < 1:
        raise ValueError(f"levels must be at least 1, got {levels}")
    if collapsed is None:
        collapsed = hasattr(flat, "collapsed_step") and flat.visible_dim <= _COLLAPSED_VISIBLE
    if collapsed and not hasattr(flat, "collapsed_step"):
        raise ValueError(f"collapsed: {type(flat).__name__} has no slabs to integrate out")
    counts = (chains - chains // 2, chains // 2)
    if schedule == "adaptive":
        work = chains * levels * flat.batch_shape[0]
        found = [_adapted(flat, path, levels, work, generator, collapsed) for path in _PATHS]
    elif schedule in ("linear", "sigmoid"):
        betas = getattr(schedules, schedule)(levels)
        found = [Walk(path, betas, collapsed, 0, 1.0) for path in _PATHS]
    else:
        raise ValueError(f"schedule: expected one of adaptive, linear, sigmoid, got {schedule!r}")
    found = [
        replace(walk, chains=count, share=walk.share * count)
        for walk, count in zip(found, counts, strict=True)
        if count
    ]
    total = sum(walk.share for walk in found)
    return [replace(walk, share=walk.share / total) for walk in found]


def _adapted(
    flat: Any,
    path: str,
    levels: int,
    work: int,
    generator: torch.Generator | None,
    collapsed: bool,
) -> Walk:
    """A path whose levels follow a pilot, with a share inverse to its log-weights' deviation."""
    steps = min(_PILOT_LEVELS, max(10, levels // 10))
    rows = min(_PILOT_ROWS, int(_PILOT_SHARE * work / steps))
    device = flat.visible_bias.device
    own = torch.Generator(device).manual_seed(seeds(1, generator)[0])
    chosen = torch.randperm(flat.batch_shape[0], generator=own, device=device)
    chosen = chosen[: max(1, rows // _PILOT_CHAINS)]
    pilot = Walk(path, schedules.linear(steps), collapsed, max(2, rows // len(chosen)))
    some = flat[chosen]
    if pilot.fused(some):
        rises = fused.rises(some, pilot.chains, pilot.levels(some), own)
    else:
        parts: list[Tensor] = []
        pilot.up(some, pilot.chains, own, rises=parts)
        rises = torch.stack(parts)
    spread = rises.double().sum(0).std(0).mean()
    betas = schedules.constant_divergence(rises, levels)
    return Walk(path, betas, collapsed, 0, 1.0 / (float(spread) + _LEAST_SPREAD))


def seeds(count: int, generator: torch.Generator | None) -> list[int]:
    """So many numbers to seed generators with."""
    device = generator.device if generator else "cpu"
    seeds: list[int] = torch.randint(2**62, (count,), generator=generator, device=device).tolist()
    return seeds
