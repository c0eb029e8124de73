"""The likelihood of a data set under a model, with its error and its side."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cgrnn.batches import Batch
from cgrnn.layers import EnergyDensity
from cgrnn.models.recurrent import RecurrentModel, mask_of
from evaluation import ais
from evaluation.result import LogPartition

PILOT_FRAMES = 100
DRIFT_ALLOWED = 0.05
ESS_ALLOWED = 5.0
_FIRST_LEVELS, _LAST_LEVELS = 500, 16_000
# The short annealing of every frame: as good as some minutes allow, for it is what makes few
# frames of the long one enough.
_SHORT_CHAINS, _SHORT_LEVELS, _SHORT_WORK = 20, 500, 50_000_000


@dataclass(frozen=True)
class Likelihood:
    """Log-likelihood of a split in nats, first frames included.

    Attributes:
        per_frame: sum over all frames by the number of frames.
        per_sequence: mean over sequences of each sequence's average per frame.
        stderr: standard error of `per_frame`, 0 when exact.
        kind: "exact", "estimate" or "lower bound".
        estimator: how partition functions were found.
        chains, levels, ess: of annealed importance sampling, `ess` averaged over frames.
        frames_estimated: frames that were annealed at `levels`.
        drift: how much halving the levels raises `per_frame`.
        warnings: what a reader must know before quoting the figure.
    """

    per_frame: float
    per_sequence: float
    stderr: float
    kind: str
    estimator: str
    chains: int | None = None
    levels: int | None = None
    ess: float | None = None
    frames_estimated: int | None = None
    drift: float | None = None
    warnings: list[str] = field(default_factory=list)
    first_frame_scored: bool = True


@torch.no_grad()
def evaluate(
    model: RecurrentModel,
    batches: Iterable[Batch],
    chains: int = 50,
    levels: int | None = None,
    target: float = 0.05,
    generator: torch.Generator | None = None,
    say: Callable[[str], None] = lambda line: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Likelihood:
    """Log-likelihood of every frame given the frames before it, averaged over a split.

    Exact for a tractable density. For an energy density the free energies of all frames are exact,
    and the mean of `log Z` is a difference estimate: a short annealing of every frame, corrected by
    the difference that a long one makes on frames drawn at random, as many as the target asks for.

    Args:
        model: in evaluation mode.
        batches: the split.
        chains: chains of the long annealing.
        levels: its levels; None doubles them until doubling moves the figure by less than 0.05.
        target: standard error at which to stop, nats a frame.
        generator: source of the draws.
        say: called with a line about each stage.
        progress: called with the chain-levels done and those of the stage.
    """
    scores, contexts, lengths = [], [], []
    for batch in batches:
        inside = mask_of(batch.lengths, batch.frames.shape[1])
        v, context = batch.frames[inside], model.contexts(batch.frames, generator)[0][inside]
        density = model.layer(context)
        energy_based = isinstance(density, EnergyDensity)
        scores.append((-density.free_energy(v) if energy_based else density.log_prob(v)).double())
        contexts.append(context if energy_based else context[:0])
        lengths.append(batch.lengths)
    score, length = torch.cat(scores), torch.cat(lengths)
    share = torch.repeat_interleave(1.0 / (length.double() * len(length)), length)
    per_frame, per_sequence = float(score.mean()), float((score * share).sum())
    if not energy_based:
        return Likelihood(per_frame, per_sequence, 0.0, "exact", "closed form")
    density = model.layer(torch.cat(contexts))
    mean = MeanLogPartition(density, share, chains, levels, target, generator, say, progress)
    return Likelihood(
        per_frame - mean.per_frame,
        per_sequence - mean.per_sequence,
        mean.stderr,
        model.likelihood_kind,
        "annealed importance sampling",
        chains,
        mean.levels,
        round(float(mean.long.ess.mean()), 1),
        len(mean.long.log_z),
        mean.drift,
        mean.warnings(),
    )


class MeanLogPartition:
    """Mean of `log Z` over a flat batch of densities, under two weightings.

    Args:
        density: batch shape `(M,)`.
        share: weight of each density in the mean per sequence, sums to 1, `(M,)`.
        chains, levels, target, generator, say, progress: as in `evaluate`.
    """

    def __init__(
        self,
        density: Any,
        share: Tensor,
        chains: int,
        levels: int | None,
        target: float,
        generator: torch.Generator | None,
        say: Callable[[str], None],
        progress: Callable[[int, int], None],
    ) -> None:
        total = density.batch_shape[0]
        self.density, self.share, self.chains = density, share, chains
        self.generator, self.progress = generator, progress
        short = min(_SHORT_LEVELS, max(20, _SHORT_WORK // (_SHORT_CHAINS * total)))
        say(f"{_SHORT_CHAINS} chains × {short} levels on all {total} frames")
        self.short = self._anneal(slice(None), short, _SHORT_CHAINS).log_z
        self.order = torch.randperm(total, generator=generator)
        pilot = min(total, PILOT_FRAMES)
        self.levels, self.drift = levels or _FIRST_LEVELS, 0.0
        before = self._anneal(self.order[:pilot], max(1, self.levels // 2), chains)
        while True:
            self.long = self._anneal(self.order[:pilot], self.levels, chains)
            rise = self.long.log_z - before.log_z
            self.drift, noise = float(rise.mean()), float(rise.std() / len(rise) ** 0.5)
            say(
                f"{self.levels} levels on {pilot} frames: mean log Z rises by {self.drift:.3f} "
                f"± {noise:.3f} over half of them"
            )
            settled = max(self.drift, 0.0) + noise < DRIFT_ALLOWED
            if levels or settled or self.levels >= _LAST_LEVELS:
                break
            before, self.levels = self.long, 2 * self.levels
        while self.stderr > target and len(self.long.log_z) < total:
            done = len(self.long.log_z)
            needed = int(done * (self.stderr / target) ** 2 * 1.1) + 1
            end = min(total, max(needed, done + 10))
            more = self._anneal(self.order[done:end], self.levels, chains)
            self.long = LogPartition.from_log_weights(
                torch.cat([self.long.log_weights, more.log_weights], dim=1)
            )
            say(f"{len(self.long.log_z)} of {total} frames: ± {self.stderr:.3f}")

    def _anneal(self, chosen: Any, levels: int, chains: int) -> LogPartition:
        density = self.density[chosen]
        done, total = 0, density.batch_shape[0] * chains * levels

        def advance(count: int) -> None:
            nonlocal done
            done += count
            self.progress(done, total)

        return ais.log_partition(density, chains, levels, self.generator, progress=advance)

    @property
    def _chosen(self) -> Tensor:
        return self.order[: len(self.long.log_z)]

    @property
    def _difference(self) -> Tensor:
        return self.long.log_z - self.short[self._chosen]

    @property
    def stderr(self) -> float:
        """Of `per_frame`: the draw of the frames and, within it, the noise of their estimates."""
        chosen, total = len(self.long.log_z), len(self.short)
        sampling = float(self._difference.var()) / chosen * (1 - chosen / total)
        noise = float((self.long.stderr**2).mean()) / chosen
        return (sampling + noise) ** 0.5

    @property
    def per_frame(self) -> float:
        return float(self.short.mean() + self._difference.mean())

    @property
    def per_sequence(self) -> float:
        share = self.share[self._chosen]
        correction = (share * self._difference).sum() / share.sum()
        return float((self.share * self.short).sum() + correction)

    def warnings(self) -> list[str]:
        """What makes the estimate doubtful; both faults make a likelihood look too good."""
        found = []
        if self.drift > DRIFT_ALLOWED:
            found.append(
                f"{self.levels} levels are too few: halving them raises the likelihood by "
                f"{self.drift:.2f} nat a frame, so the true one is lower; raise --levels"
            )
        collapsed = float((self.long.ess < ESS_ALLOWED).double().mean())
        if collapsed > 0.1:
            found.append(
                f"annealed importance sampling has collapsed on {collapsed:.0%} of the frames "
                f"(fewer than {ESS_ALLOWED:.0f} effective chains of {self.chains}): the figure "
                "flatters and its error is understated; raise --levels or --chains"
            )
        return found
