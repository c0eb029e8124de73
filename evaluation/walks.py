"""The paths of annealed importance sampling: their levels, and the chains that go along them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

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


@dataclass(frozen=True)
class Walk:
    """One path with its levels, and the chains that go along it, up or down."""

    path: str
    betas: list[float]
    collapsed: bool
    chains: int
    share: float = 0.0

    def at(self, densities: Any, level: int) -> Any:
        return getattr(densities, self.path)(self.betas[level])

    def fused(self, densities: Any) -> bool:
        """Whether the compiled kernel makes the sweeps."""
        return not self.collapsed and fused.knows(densities)

    def _factors(self, densities: Any) -> list[tuple[float, float, float]]:
        return [densities.path_factors(self.path, beta) for beta in self.betas]

    def fused_up(
        self, densities: Any, generator: torch.Generator | None, progress: Progress | None
    ) -> Tensor:
        """What `up` gives, for all densities and chains."""
        base = self.at(densities, 0).base_log_partition().double()
        levels = self._factors(densities)
        return base + fused.anneal(densities, self.chains, levels, generator, None, progress)

    def fused_down(
        self,
        densities: Any,
        v: Tensor,
        generator: torch.Generator | None,
        progress: Progress | None,
    ) -> Tensor:
        """What `down` gives, for all densities and chains."""
        base = self.at(densities, 0).base_log_partition().double()
        levels = self._factors(densities)[::-1]
        return base - fused.anneal(densities, self.chains, levels, generator, v, progress)

    @torch.no_grad()  # a thread has a gradient mode of its own
    def up(
        self,
        densities: Any,
        chains: int,
        generator: torch.Generator,
        rises: list[Tensor] | None = None,
    ) -> Tensor:
        """Log-weights `(chains, B)` float64 of chains from the base; `rises` gets their parts."""
        before = self.at(densities, 0)
        v = before.sample_base((chains,), generator)
        log_weights = before.base_log_partition().double().expand(chains, -1).clone()
        for level in range(1, len(self.betas)):
            after = self.at(densities, level)
            projected = after.project(v)
            rise = before.free_energy(v, projected) - after.free_energy(v, projected)
            log_weights += rise
            if rises is not None:
                rises.append(rise)
            if level < len(self.betas) - 1:
                v = self._sweep(after, v, generator, projected)
            before = after
        return log_weights

    @torch.no_grad()
    def down(self, densities: Any, v: Tensor, generator: torch.Generator) -> Tensor:
        """Log-weights of chains that start at draws of the densities themselves."""
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
        return log_weights

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
        rises = fused.rises(some, pilot.chains, pilot._factors(some), own)
    else:
        parts: list[Tensor] = []
        pilot.up(some, pilot.chains, own, parts)
        rises = torch.stack(parts)
    spread = rises.double().sum(0).std(0).mean()
    betas = schedules.constant_divergence(rises, levels)
    return Walk(path, betas, collapsed, 0, 1.0 / (float(spread) + _LEAST_SPREAD))


def seeds(count: int, generator: torch.Generator | None) -> list[int]:
    """So many numbers to seed generators with."""
    device = generator.device if generator else "cpu"
    seeds: list[int] = torch.randint(2**62, (count,), generator=generator, device=device).tolist()
    return seeds
