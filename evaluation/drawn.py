"""Latents that a model draws and feeds back: how often to draw them, and the error that it leaves.

With drawn latents the figure is an expectation over them, the lower bound of the CGRNN paper's
Eq. 2,
    `log p(v_1..N) ≥ E[Σ_n log p(v_n | u_{n-1})]`,
and a mean over `D` draws has an error beside that of `log Z`. Sequences are drawn independently:
with `s²` the variance of a sequence's summed score over draws it is `√(Σ s² / D)` by the number of
frames. A handful of draws tells the sum over many sequences.
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

DEGREES = 16  # of freedom of the variance over draws: its root is then known to 18 %
MOST_DRAWS, MOST_FRAMES = 100, 300_000
PILOT_FRAMES, PILOT_CHAINS, PILOT_LEVELS = 2000, 4, 100
CAUTION = 1.25  # by how much the pilot's variance may be too small


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

    A pilot of some sequences, annealed cheaply under the least number of draws, tells their
    variance. So many are made that they take half of the target's square or less, within
    `MOST_DRAWS` and `MOST_FRAMES`. Where latents are not drawn, one is all.

    Memory: the biases of all frames under all draws; of the contexts those of one draw.

    Args:
        model: in evaluation mode.
        batches: the split.
        target: standard error of the mean per frame to reach, nats.
        blocks: how the work is done.
        say: called with a line about each stage.

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
        self.target, self.chain_levels, self._expected = target, 0, 0.0
        self.drawn = model.likelihood_kind == "lower bound"
        draws = [_draw(model, batches, blocks, 0)]
        self.lengths = draws[0].lengths
        if self.drawn:
            least = 1 + math.ceil(DEGREES / self._alike)
            draws += [_draw(model, batches, blocks, number) for number in range(1, least)]
            count = self._plan(draws, blocks, say)
            draws += [_draw(model, batches, blocks, number) for number in range(least, count)]
        self.score = torch.stack([draw.score for draw in draws])
        self.density = _joined([draw.density for draw in draws])

    @property
    def count(self) -> int:
        return len(self.score)

    @property
    def frames(self) -> int:
        return int(self.lengths.sum())

    @property
    def share(self) -> Tensor:
        """Of each frame under each draw in the mean per sequence, `(D N,)`."""
        share = 1.0 / (self.lengths.double() * len(self.lengths) * self.count)
        return torch.repeat_interleave(share, self.lengths).repeat(self.count)

    def variance(self, log_z: Tensor, noise: Tensor) -> float:
        """Squared standard error of the mean per frame that the draws leave, nats².

        The noise of the estimates of `log Z`, which has an error of its own, is taken out.

        Args:
            log_z: an estimate for each frame under each draw, `(D N,)`.
            noise: its squared standard error, `(D N,)`.
        """
        if not self.drawn:
            return 0.0
        score = self.score - log_z.view_as(self.score)
        one = _variance(score, noise.view_as(score), self.lengths)
        return one / self.count / self.frames**2

    def rest(self, variance: float | None = None) -> float:
        """Standard error that is left to the mean of `log Z` beside that of the draws.

        Args:
            variance: of the draws; None takes what the pilot expects.
        """
        variance = self._expected if variance is None else variance
        return math.sqrt(max(self.target**2 - variance, variance / 4))

    def warnings(self, stderr: float) -> list[str]:
        """What to do where the error of the figure is above the target."""
        if not self.drawn or stderr <= self.target:
            return []
        return [
            f"{self.count} draws of the latents leave ± {stderr:.2g} where ± {self.target:.2g} was "
            "asked for; the mean of evaluations with "
            f"{math.ceil((stderr / self.target) ** 2)} values of --seed would reach it"
        ]

    @property
    def _alike(self) -> float:
        """How many sequences of one length would tell as much of the variance."""
        lengths = self.lengths.double()
        return float(lengths.sum() ** 2 / (lengths**2).sum())

    def _plan(self, draws: list[_Draw], blocks: Blocks, say: Callable[[str], None]) -> int:
        order = torch.randperm(
            len(self.lengths), generator=blocks.generator("sequences"), device=blocks.device
        ).cpu()
        before = self.lengths[order].cumsum(0) - self.lengths[order]
        chosen = torch.zeros(len(order), dtype=torch.bool)
        chosen[order[before < PILOT_FRAMES]] = True
        inside = torch.repeat_interleave(chosen, self.lengths).nonzero()[:, 0]

        def one(number: int, generator: torch.Generator) -> dict[str, Tensor]:
            density = draws[number].density[inside.to(blocks.device)]
            found = ais.log_partition(
                density, PILOT_CHAINS, PILOT_LEVELS, generator, progress=blocks.advance
            )
            return {"log_z": found.log_z, "noise": found.stderr**2}

        cost = len(inside) * PILOT_CHAINS * PILOT_LEVELS
        parts = blocks.run("draws", range(len(draws)), one, [cost] * len(draws))
        self.chain_levels = cost * len(draws)
        score = torch.stack([d.score[inside] for d in draws])
        score -= torch.stack([part["log_z"] for part in parts])
        noise = torch.stack([part["noise"] for part in parts])
        variance = _variance(score, noise, self.lengths[chosen]) / len(inside) / self.frames
        most = max(len(draws), min(MOST_DRAWS, MOST_FRAMES // self.frames))
        wanted = math.ceil(2 * CAUTION * variance / self.target**2)
        count = min(max(len(draws), wanted), most)
        self._expected = CAUTION * variance / count
        say(
            f"one draw of the latents leaves ± {variance**0.5:.3f} (by {len(draws)} on "
            f"{int(chosen.sum())} sequences): {count} are made"
        )
        return count


def _draw(model: RecurrentModel, batches: BatchList, blocks: Blocks, number: int) -> _Draw:
    """Not done in blocks: soon done, and too large to be kept."""
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
    fields = {
        name: torch.cat([getattr(density, name) for density in densities])
        for name in first.contextual
    }
    return replace(first, **fields)


def _variance(score: Tensor, noise: Tensor, lengths: Tensor) -> float:
    """Sum over sequences of the variance of their summed score over draws, nats².

    Args:
        score, noise: of each frame under each draw, the second the part that is not the latents',
            `(D, N)`.
        lengths: of the sequences, `(S,)`.
    """
    pieces = lengths.tolist()
    totals = torch.stack([part.sum(1) for part in score.split(pieces, 1)])
    return max(0.0, float(totals.var(1).sum() - noise.mean(0).sum()))
