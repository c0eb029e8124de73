"""Latents that a model draws and feeds back: how often to draw them, and the error that leaves.

With drawn latents the figure is an expectation over them, the lower bound of the CGRNN paper's
Eq. 2,
    `log p(v_1..N) ≥ E[Σ_n log p(v_n | u_{n-1})]`,
and the mean over `D` draws has an error beside that of `log Z`. Latents of different sequences are
independent: where `s²` is the variance of a sequence's summed score over draws, the error is
`√(Σ s² / D)` by the number of frames. Over many sequences a few draws suffice to know `Σ s²`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cgrnn.models.recurrent import RecurrentModel
from evaluation import ais
from evaluation.blocks import BatchList, Blocks

DEGREES = 16  # of freedom of the variance over draws, at least: its root is then known to 18 %
MOST_DRAWS, MOST_FRAMES = 100, 200_000
PILOT_FRAMES, PILOT_CHAINS, PILOT_LEVELS = 2000, 4, 100
CAUTION = 1.25  # the pilot's variance may be too small by this


class Spread(NamedTuple):
    """Squared standard errors, nats², that the draws leave to the two averages."""

    per_frame: float
    per_sequence: float


class _Draw(NamedTuple):
    """Every scored frame under one draw of the latents.

    Attributes:
        score: `-F(v_n)`, `(N,)` float64.
        density: batch shape `(N,)`.
        lengths: scored frames of each sequence, `(S,)`.
    """

    score: Tensor
    density: Any
    lengths: Tensor


class Drawn:
    """All scored frames of a split, under as many draws of the latents as a target asks for.

    A pilot anneals some sequences cheaply under the least number of draws, for their variance.
    Then so many are made that they take half of the square of the target, or less, up to
    `MOST_DRAWS` draws and `MOST_FRAMES` frames in all. Where no latents are drawn, one is all.

    Memory: the biases of all frames under all draws, and the contexts of one draw.

    Args:
        model: in evaluation mode.
        batches: the split.
        target: standard error of the mean per frame to reach, nats.
        blocks: how the work is done; its progress is told in chain-levels.
        say: called with a line about the pilot.

    Attributes:
        count: draws of the latents, `D`.
        lengths: scored frames of each sequence, `(S,)`.
        score: `-F(v_n)`, `(D, N)` float64, sequences end to end.
        density: of each frame under each draw, in that order, batch shape `(D N,)`.
        chain_levels: spent on the pilot.
    """

    def __init__(
        self,
        model: RecurrentModel,
        batches: BatchList,
        target: float,
        blocks: Blocks,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.target, self.blocks, self.chain_levels = target, blocks, 0
        draws = [_draw(model, batches, blocks, 0)]
        self.lengths, self._expected = draws[0].lengths, 0.0
        self.varies = model.likelihood_kind == "lower bound"
        if self.varies:
            lengths = self.lengths.double()
            alike = float(lengths.sum() ** 2 / (lengths**2).sum())  # sequences, were they so
            least = 1 + math.ceil(DEGREES / alike)
            draws += [_draw(model, batches, blocks, number) for number in range(1, least)]
            count = self._plan(draws, say)
            draws += [_draw(model, batches, blocks, number) for number in range(least, count)]
        self.score = torch.stack([draw.score for draw in draws])
        self.density = _joined([draw.density for draw in draws])

    @property
    def count(self) -> int:
        return len(self.score)

    @property
    def share(self) -> Tensor:
        """Of each frame under each draw in the mean per sequence, `(D N,)`."""
        share = 1.0 / (self.lengths.double() * len(self.lengths))
        return torch.repeat_interleave(share, self.lengths).repeat(self.count) / self.count

    def spread(self, log_z: Tensor, noise: Tensor) -> Spread:
        """What the draws leave. The noise of the estimates of `log Z` is taken out.

        What is left is uncertain where that noise is most of it; but then the error of the mean of
        `log Z`, which that noise is a part of, is the larger by far.

        Args:
            log_z: an estimate for each frame under each draw, `(D N,)`.
            noise: its squared standard error, `(D N,)`.
        """
        if not self.varies:
            return Spread(0.0, 0.0)
        score = self.score - log_z.view_as(self.score)
        variance = _variance(score, noise.view_as(score), self.lengths) / self.count
        means = variance / self.lengths**2
        return Spread(
            max(0.0, float(variance.sum())) / int(self.lengths.sum()) ** 2,
            max(0.0, float(means.sum())) / len(self.lengths) ** 2,
        )

    def rest(self, variance: float | None = None) -> float:
        """Standard error that the mean of `log Z` may have beside that of the draws.

        Args:
            variance: what the draws leave per frame; None takes what the pilot expects.
        """
        variance = self._expected if variance is None else variance
        return math.sqrt(max(self.target**2 - variance, variance / 4))

    def warnings(self, stderr: float) -> list[str]:
        """What to do where the error of the figure is above the target."""
        if not self.varies or stderr <= self.target:
            return []
        return [
            f"{self.count} draws of the latents leave ± {stderr:.2g} where ± {self.target:.2g} was "
            "asked for; the mean of evaluations with "
            f"{math.ceil((stderr / self.target) ** 2)} values of --seed would reach it"
        ]

    def _plan(self, draws: list[_Draw], say: Callable[[str], None]) -> int:
        """How many draws there must be, by those of the pilot."""
        chosen = self._some()
        inside = torch.repeat_interleave(chosen, self.lengths).nonzero()[:, 0]

        def one(draw: _Draw, generator: torch.Generator) -> dict[str, Tensor]:
            density, advance = draw.density[inside], self.blocks.advance
            found = ais.log_partition(
                density, PILOT_CHAINS, PILOT_LEVELS, generator, progress=advance
            )
            noise = (found.stderr**2).nan_to_num(posinf=0.0)  # what is missed has no error
            return {"score": draw.score[inside] - found.log_z.cpu(), "noise": noise.cpu()}

        cost = len(inside) * PILOT_CHAINS * PILOT_LEVELS
        found = self.blocks.run("draws", draws, one, [cost] * len(draws))
        self.chain_levels = cost * len(draws)
        score, noise = (torch.stack([part[name] for part in found]) for name in ("score", "noise"))
        frames = int(self.lengths.sum())
        total = max(0.0, float(_variance(score, noise, self.lengths[chosen]).sum()))
        variance = CAUTION * total / len(inside) / frames
        most = max(len(draws), min(MOST_DRAWS, MOST_FRAMES // frames))
        count = min(max(len(draws), math.ceil(2 * variance / self.target**2)), most)
        self._expected = variance / count
        say(
            f"one draw of the latents leaves about ± {variance**0.5:.3f}, by {len(draws)} on "
            f"{int(chosen.sum())} sequences: {count} are made"
        )
        return count

    def _some(self) -> Tensor:
        """Sequences of the pilot, `(S,)`: at random, until they have frames enough."""
        generator, count = self.blocks.generator("sequences"), len(self.lengths)
        order = torch.randperm(count, generator=generator, device=self.blocks.device).cpu()
        before = self.lengths[order].cumsum(0) - self.lengths[order]
        chosen = torch.zeros(count, dtype=torch.bool)
        chosen[order] = (before < PILOT_FRAMES) | (torch.arange(count) < DEGREES)
        return chosen


def _draw(model: RecurrentModel, batches: BatchList, blocks: Blocks, number: int) -> _Draw:
    """Soon done, and too large to be kept: not a block of work."""
    scores, contexts, lengths = [], [], []
    for n in range(len(batches)):
        batch, own = batches[n].to(blocks.device), blocks.generator(f"contexts-{number}", n)
        inside = model.scored(batch.lengths, batch.frames.shape[1])
        v, context = batch.frames[inside], model.contexts(batch.frames, own)[0][inside]
        scores.append(-model.layer(context).free_energy(v).double().cpu())
        contexts.append(context)
        lengths.append(batch.lengths.cpu() - model.given_frames)
    return _Draw(torch.cat(scores), model.layer(torch.cat(contexts)), torch.cat(lengths))


def _joined(densities: list[Any]) -> Any:
    """One batch of densities that share their couplings."""
    first = densities[0]
    fields = {name: torch.cat([getattr(d, name) for d in densities]) for name in first.contextual}
    return replace(first, **fields)


def _variance(score: Tensor, noise: Tensor, lengths: Tensor) -> Tensor:
    """Variance over draws of each sequence's summed score, `(S,)`; by chance below 0.

    Args:
        score: of each frame under each draw, `(D, N)`.
        noise: the part of its variance that is not the latents', `(D, N)`.
        lengths: of the sequences, `(S,)`.
    """
    pieces = lengths.tolist()
    totals = torch.stack([part.sum(1) for part in score.split(pieces, 1)])
    taken = torch.stack([part.sum(1).mean() for part in noise.split(pieces, 1)])
    return totals.var(1) - taken
