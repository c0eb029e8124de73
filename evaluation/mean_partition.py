"""How many chains, levels and frames the mean of many partition functions needs, and that mean."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from evaluation import ais, modes
from evaluation.blocks import Blocks
from evaluation.stages import PILOT_CHAINS, PILOT_FRAMES, Annealed, Gap, Pilot, forgotten
from samplers import chain

REVERSE_SWEEPS = 1000
LEAST_FRAMES = 50
SEARCH_FRAMES, SEARCH_SWEEPS, STATES = 50, 1500, 12
DRIFT_ALLOWED = 0.05
COLLAPSED_ALLOWED = 0.1
_FIRST_LEVELS, _LAST_LEVELS = 250, 16_000
_SHORT_CHAINS = (2, 4, 8, 16, 32)
# Chain-levels of a block: some ten seconds of work, of which placing the levels takes 3 %.
_BLOCK = {"cpu": 3_000_000, "cuda": 200_000_000}


class _Short(NamedTuple):
    """The cheap annealing of every frame, and how many frames the dear one then needs."""

    chains: int
    levels: int
    needed: int
    cost: float


class MeanLogPartition:
    """Mean of `log Z` over a flat batch of densities, to a wanted standard error.

    Two stages of annealed importance sampling make a difference estimate: a short one of every
    frame, and a long one of frames drawn at random, whose mean difference corrects it. Chains and
    levels are spent where the variance is:

    * the levels of the long one double, on a pilot, until doubling moves the mean by less than
      0.05 nat; (the log-weights' variance falls with the levels, and with it the flattery);
    * the short one gets the chains and levels at which the pilot's variances promise the least
      cost of both stages together;
    * frames are added to the long one until the target is met.

    `log Ẑ` of so few chains is low by about half its squared standard error. That much is added.

    In the end reverse annealing of some frames, from Gibbs chains of 1000 sweeps, tells how far
    above the estimate the truth can lie (`reverse_gap`). It is a bound as far as the chains have
    mixed.

    Args:
        density: batch shape `(M,)`.
        share: weight of each density in the mean per sequence, sums to 1, `(M,)`.
        chains: chains of the long annealing.
        levels: its levels; None lets them double until they suffice.
        target: standard error of the mean at which to stop, nats.
        blocks: how the work is done; its progress is told in chain-levels.
        say: called with a line about each stage.
        data: frames `(n, V)` of which some are where chains begin that look for modes.

    Attributes:
        annealed: what the long annealing found of its frames.
        states: frames from many modes, where all later searches begin; None where frames are
            neither binary nor continuous.
        forgotten: by how much a pilot lies above the long annealing beyond both errors, in nats,
            and on which share of its frames.
        levels: of the long annealing.
        drift: how much the last doubling of the levels raised the mean of `log Z`.
        reverse_gap: how far reverse annealing lies above the estimate.
        chain_levels: all that were spent, pilots included.
    """

    def __init__(
        self,
        density: Any,
        share: Tensor,
        chains: int,
        levels: int | None,
        target: float,
        blocks: Blocks,
        say: Callable[[str], None] = lambda line: None,
        data: Tensor | None = None,
    ) -> None:
        self.density, self.share, self.chains = density, share, chains
        self.blocks, self.say = blocks, say
        self.total, self.chain_levels = density.batch_shape[0], 0
        random = blocks.generator("order")
        self.order = torch.randperm(self.total, generator=random, device=blocks.device).cpu()
        self.states = self._search(data)
        pilots = self._settle(levels)
        self.levels = pilots[-1].levels
        self.plan = self._plan(pilots, target)
        self.short = torch.zeros(self.total, dtype=torch.float64)
        self.cheap: Annealed | None = None
        if self.plan.needed < self.total:
            chains, levels = self.plan.chains, self.plan.levels
            say(f"{chains} chains × {levels} levels on all {self.total} frames")
            self.cheap = self._anneal("short", torch.arange(self.total), chains, levels)
            self.short = self.cheap.corrected
        self.annealed = Annealed.none()
        self.reach(target)
        self.forgotten = forgotten(pilots, self.annealed)
        self.reverse_gap = self._reverse()

    def reach(self, target: float) -> None:
        """Anneal frames at length until the standard error is met, or all frames are."""
        while len(self.long) < self.total and (len(self.long) == 0 or self.stderr > target):
            self._lengthen(self.plan, target)

    @property
    def of_each(self) -> tuple[Tensor, Tensor]:
        """Estimates of all densities by one annealing alike, and their squared errors, `(M,)`."""
        if self.cheap is not None:
            return self.cheap.corrected, self.cheap.noise
        places = self.order.argsort()
        return self.long[places], self.annealed.noise[places]

    @property
    def bound(self) -> Tensor:
        """Proven lower bound of `log Z` of each density, `(M,)`; -inf where nothing is proven."""
        none = torch.full_like(self.short, -math.inf)
        bound = none if self.cheap is None else self.cheap.bound
        return bound.index_copy(
            0, self._chosen, torch.maximum(bound[self._chosen], self.annealed.bound)
        )

    @property
    def long(self) -> Tensor:
        """`log Ẑ` of the frames that were annealed at length."""
        return self.annealed.corrected

    @property
    def ess(self) -> Tensor:
        return self.annealed.ess

    @property
    def per_frame(self) -> float:
        return float(self.short.mean() + self._difference.mean())

    @property
    def per_sequence(self) -> float:
        share = self.share[self._chosen]
        correction = (share * self._difference).sum() / share.sum()
        return float((self.share * self.short).sum() + correction)

    @property
    def stderr(self) -> float:
        """Of `per_frame`: the draw of the frames and the noise of their estimates."""
        chosen = len(self.long)
        noise = self.annealed.variance / self.total
        if chosen == self.total:
            return noise**0.5
        sampling = float(self._difference.var()) / chosen * (1 - chosen / self.total)
        return (sampling + noise) ** 0.5

    @property
    def per_sequence_stderr(self) -> float:
        """Of `per_sequence`, in the same way: a ratio of means over the frames drawn."""
        chosen, part = len(self.long), len(self.long) / self.total
        share = self.share[self._chosen]
        noise = part * float((share**2 * self.annealed.noise).sum() / share.sum() ** 2)
        if chosen == self.total:
            return noise**0.5
        off = share * (self._difference - (share * self._difference).sum() / share.sum())
        sampling = float(off.square().sum() / share.sum() ** 2) * chosen / (chosen - 1)
        return (sampling * (1 - part) + noise) ** 0.5

    def warnings(self) -> list[str]:
        """What makes the estimate doubtful; the first two make a likelihood look too good."""
        found = []
        if self.drift.mean > DRIFT_ALLOWED:
            found.append(
                f"{self.levels} levels are too few: halving them raises the likelihood by "
                f"{self.drift.mean:.2f} nat a frame, so the true one is lower; raise --levels"
            )
        collapsed = float((self.ess < 0.25 * self.chains).double().mean())
        if collapsed > COLLAPSED_ALLOWED:
            found.append(
                f"annealed importance sampling has collapsed on {collapsed:.0%} of the frames "
                f"(fewer than {0.25 * self.chains:.0f} effective chains of {self.chains}): the "
                "figure flatters and its error is understated; raise --levels or --chains"
            )
        missed = float(self.annealed.missed.double().mean())
        if missed:
            found.append(
                f"annealing misses modes on {missed:.1%} of the frames: states were found that "
                "prove log Z higher, and there it stands at what is proven, so the true likelihood "
                "is lower; raise --chains, or train with --restarts"
            )
        above, part = self.forgotten
        if part:
            found.append(
                f"on {part:.0%} of its frames a pilot found log Z higher than the long annealing, "
                f"by {above:.2f} nat on average: a mode is met by chance, and the true likelihood "
                "may be lower; raise --chains"
            )
        gap, error = self.reverse_gap
        if abs(gap) > 2 * DRIFT_ALLOWED + 3 * error:
            found.append(
                f"annealing in reverse from Gibbs chains disagrees by {gap:+.2f} ± {error:.2f} "
                f"nat in log Z: {REVERSE_SWEEPS} sweeps do not reach equilibrium, or the levels "
                "are too few"
            )
        return found

    @property
    def _chosen(self) -> Tensor:
        return self.order[: len(self.long)]

    @property
    def _difference(self) -> Tensor:
        return self.long - self.short[self._chosen]

    def _search(self, data: Tensor | None) -> Tensor | None:
        """Look for modes at some frames with more patience than each frame is given later."""
        chosen = self.order[:SEARCH_FRAMES]

        def one(frames: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
            density = self.density[frames]
            found = modes.search(density, SEARCH_SWEEPS, generator, data)
            self.blocks.advance(len(frames) * SEARCH_SWEEPS)
            return {} if found is None else {"states": modes.spread(found, STATES)}

        parts = self._run("search", chosen, SEARCH_SWEEPS, one)
        if not parts[0]:
            return None
        return _joined(parts, "states").to(self.density.visible_bias.device)

    def _settle(self, levels: int | None) -> list[Pilot]:
        """Anneal the pilot frames at ever more levels, until more do not move their mean."""
        wanted = [levels] if levels else []
        pilots = [self._pilot(max(1, levels // 2) if levels else _FIRST_LEVELS)]
        while True:
            before = pilots[-1]
            pilots.append(self._pilot(wanted.pop() if wanted else 2 * before.levels))
            found = pilots[-1].estimate
            self.drift = Gap.between(found.corrected, before.estimate.corrected)
            self.say(
                f"{pilots[-1].levels} levels on {found.log_z.numel()} frames: mean log Z rises by "
                f"{self.drift.mean:.3f} ± {self.drift.error:.3f} over {before.levels}"
            )
            settled = max(self.drift.mean, 0.0) + self.drift.error < DRIFT_ALLOWED
            if levels or settled or pilots[-1].levels >= _LAST_LEVELS:
                return pilots

    def _pilot(self, levels: int) -> Pilot:
        name, chosen = f"pilot-{levels}", self.order[:PILOT_FRAMES]
        return Pilot(levels, self._anneal(name, chosen, PILOT_CHAINS, levels))

    def _plan(self, pilots: list[Pilot], target: float) -> _Short:
        """The cheapest way to the target that the pilot's variances promise."""
        last = pilots[-1]
        best = _Short(0, 0, self.total, float(self.total * self.chains * self.levels))
        for pilot in pilots:
            moved = last.estimate.corrected - pilot.estimate.corrected
            noise = (pilot.variance + last.variance) / PILOT_CHAINS if pilot is not last else 0.0
            between = max(0.0, float(moved.var()) - noise) if len(moved) > 1 else 0.0
            for chains in _SHORT_CHAINS:
                variance = between + pilot.variance / chains + last.variance / self.chains
                allowed = target**2 - last.variance / self.chains / self.total
                needed = (
                    int(1 / (allowed / variance + 1 / self.total)) + 1
                    if allowed > 0 and variance > 0
                    else self.total
                )
                cost = self.total * chains * pilot.levels + needed * self.chains * self.levels
                if cost < best.cost:
                    best = _Short(chains, pilot.levels, max(needed, LEAST_FRAMES), float(cost))
        return best

    def _lengthen(self, plan: _Short, target: float) -> None:
        """Anneal more frames at length: as many as the plan, or the error so far, asks for."""
        done = len(self.long)
        needed = int(done * (self.stderr / target) ** 2) if done else plan.needed
        end = min(self.total, max(needed, done + max(LEAST_FRAMES, done // 5)))
        found = self._anneal(f"long-{done}", self.order[done:end], self.chains, self.levels)
        self.annealed = self.annealed.joined(found)
        self.say(
            f"{self.chains} chains × {self.levels} levels on {end} of {self.total} frames: "
            f"± {self.stderr:.3f}"
        )

    def _reverse(self) -> Gap:
        chosen = self.order[:LEAST_FRAMES]
        before = 2 * _FIRST_LEVELS  # for the draws where the sweeps begin

        def one(frames: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
            density = self.density[frames]
            samples = ais.draw(density, PILOT_CHAINS, _FIRST_LEVELS, generator, self.states)
            samples = chain(density, samples, REVERSE_SWEEPS, generator)
            self.blocks.advance(len(frames) * PILOT_CHAINS * (before + REVERSE_SWEEPS))
            found = ais.reverse_log_partition(
                density, samples, self.levels, generator, progress=self.blocks.advance
            )
            return {"log_z": found.log_z}

        parts = self._run(
            "reverse", chosen, PILOT_CHAINS * (before + REVERSE_SWEEPS + self.levels), one
        )
        gap = Gap.between(_joined(parts, "log_z"), self.long[:LEAST_FRAMES])
        self.say(
            f"annealing in reverse on {len(chosen)} frames: log Z above by {gap.mean:.3f} "
            f"± {gap.error:.3f}"
        )
        return gap

    def _anneal(self, name: str, chosen: Tensor, chains: int, levels: int) -> Annealed:
        def one(frames: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
            found = ais.log_partition(
                self.density[frames],
                chains,
                levels,
                generator,
                progress=self.blocks.advance,
                starts=self.states,
            )
            none = torch.full_like(found.log_z, -math.inf)
            return {
                "log_z": found.log_z,
                "stderr": found.stderr,
                "ess": found.ess,
                "bound": none if found.bound is None else found.bound,
                "missed": torch.zeros_like(none).bool() if found.missed is None else found.missed,
            }

        parts = self._run(name, chosen, chains * levels, one)
        return Annealed(*(_joined(parts, field) for field in Annealed._fields))

    def _run(
        self,
        name: str,
        chosen: Tensor,
        cost: int,
        function: Callable[[Tensor, torch.Generator], dict[str, Any]],
    ) -> list[dict[str, Any]]:
        """Do something to frames that cost so many chain-levels each."""
        spent = len(chosen) * cost
        self.chain_levels += spent
        count = min(len(chosen), max(1, round(spent / _BLOCK[self.blocks.device.type])))
        parts = chosen.tensor_split(count)
        return self.blocks.run(name, parts, function, [len(part) * cost for part in parts])


def _joined(parts: list[dict[str, Any]], name: str) -> Tensor:
    return torch.cat([part[name] for part in parts])
