"""The likelihood of a data set under a model, with its error and its side."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from cgrnn.models.recurrent import RecurrentModel
from cgrnn.models.sequence import SequenceModel
from evaluation.blocks import BatchList, Blocks, blocks_of
from evaluation.drawn import Drawn
from evaluation.mean_partition import MeanLogPartition
from evaluation.result import ERRORS_ALLOWED
from samplers import particles


@dataclass(frozen=True)
class Likelihood:
    """Log-likelihood of a split in nats, of the frames as its batches give them (`cgrnn.units`).

    The error of a lower bound is that of the bound itself: how far it lies below the likelihood
    is not in it.

    Attributes:
        per_frame: sum over all frames by the number of frames.
        per_sequence: mean over sequences of each sequence's average per frame.
        stderr: standard error of `per_frame`, 0 when exact: Monte-Carlo noise on this split, which
            is not all that may be wrong; see `stderr_covers`.
        kind: "exact", "estimate" or "lower bound"; "upper bound" where the estimate was above what
            is proven, which then stands in its place.
        estimator: how partition functions were found.
        chains, levels, ess: of annealed importance sampling, `ess` averaged over frames.
        frames_estimated: frames that were annealed at `levels`, under each draw of the latents
            counted apart.
        drift: how much halving the levels raises `per_frame`.
        reverse_gap: how far annealing in reverse, from Gibbs chains, lies below `per_frame`.
        chain_levels: all that were spent: sweeps times chains times frames.
        paths: of latents for each sequence.
        proven_at_most: what `per_frame` cannot exceed, by states that were found of every density
            and count in its `log Z` (`evaluation.modes`); no chain needs to have mixed for it.
        bounds: the averages per frame by one path, by many, and by a particle filter.
        draws: of the latents that are fed back, over which the bound is the mean.
        per_sequence_stderr: standard error of `per_sequence`, 0 when exact.
        warnings: what a reader must know before quoting the figure.
        first_frame_scored: False where the data set gives it as input alone.
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
    reverse_gap: float | None = None
    chain_levels: int | None = None
    paths: int | None = None
    proven_at_most: float | None = None
    bounds: dict[str, float] | None = None
    draws: int | None = None
    per_sequence_stderr: float = 0.0
    warnings: list[str] = field(default_factory=list)
    first_frame_scored: bool = True

    def at_most(self, per_frame: float, per_sequence: float) -> Likelihood:
        """The same beside its proven upper bound, which stands in its place where it lies above."""
        if not math.isfinite(per_frame):
            return self
        proven = replace(self, proven_at_most=per_frame)
        if self.per_frame <= per_frame + ERRORS_ALLOWED * self.stderr:
            return proven
        refuted = (
            f"annealing put it at {self.per_frame:.2f} ± {self.stderr:.2f} nats a frame, which is "
            f"proven wrong: it is {per_frame:.2f} at the most, and that is what stands here"
        )
        return replace(
            proven,
            per_frame=per_frame,
            per_sequence=per_sequence,
            stderr=0.0,
            per_sequence_stderr=0.0,
            kind="upper bound",
            warnings=[refuted, *self.warnings],
        )

    @property
    def stderr_covers(self) -> str:
        """What `stderr` holds and what it leaves out."""
        annealed = self.chains is not None
        return {
            "exact": "nothing to cover: the figure is exact",
            "estimate": "Monte-Carlo noise of log Z; not the bias of annealing, of which drift and "
            "reverse_gap tell",
            "lower bound": "Monte-Carlo noise of "
            + ("log Z and of the draws of the latents; not " if annealed else "the bound; not ")
            + "the gap from the bound up to the likelihood",
            "upper bound": "nothing to cover: proven, not estimated",
        }[self.kind]


REPEATS = 2


def _averages(score: Tensor, lengths: Tensor) -> tuple[float, float, Tensor]:
    """Of frames end to end: the mean per frame, that per sequence, and each frame's share of it."""
    share = torch.repeat_interleave(1.0 / (lengths.double() * len(lengths)), lengths)
    return float(score.mean()), float((score * share).sum()), share


@torch.no_grad()
def exactly(
    model: SequenceModel,
    batches: BatchList,
    generator: torch.Generator | Blocks | None = None,
) -> Likelihood:
    """Log-likelihood of a split under a model whose `scores` are exact.

    Args:
        model: in evaluation mode.
        batches: the split.
        generator: the blocks in which the work is done; nothing is drawn.
    """
    blocks = blocks_of(generator, model)

    def one(number: int, _: torch.Generator) -> dict[str, Tensor]:
        batch = batches[number].to(blocks.device)
        inside = model.scored(batch.lengths, batch.frames.shape[1])
        found = model.scores(batch.frames, batch.lengths, inside, lambda density: None)
        return {"score": found.log_prob, "length": batch.lengths - model.given_frames}

    found = blocks.run("likelihood", range(len(batches)), one)
    per_frame, per_sequence, _ = _averages(_joined(found, "score"), _joined(found, "length"))
    return Likelihood(
        per_frame,
        per_sequence,
        0.0,
        "exact",
        "closed form",
        first_frame_scored=not model.given_frames,
    )


@torch.no_grad()
def by_paths(
    model: SequenceModel,
    batches: BatchList,
    paths: int = 100,
    method: str = "filter",
    generator: torch.Generator | Blocks | None = None,
    log_partition: Callable[[Any], Tensor] | None = None,
) -> Likelihood:
    """Lower bounds of the log-likelihood by paths of latents (`samplers.particles`).

    Formula: with the mean `ŵ` of the weights of the paths of a sequence, `E ŵ = p(v)`, so that
        `E log ŵ ≤ log p(v)` by Jensen's inequality; the gap is about `½ Var(ŵ) / p(v)²` where that
        is small.

    Each is an average of two, whose differences give its error: `stderr` is the noise of the draws
    and holds nothing of the gap. `bounds` tells of it: the gap of one path is no smaller than the
    rise from one path to many.

    Args:
        model: in evaluation mode.
        batches: the split.
        paths: for each sequence.
        method: "filter" or "paths": which of the bounds is quoted.
        generator: source of the draws, or the blocks in which the work is done.
        log_partition: gives `log Z` of an energy density.
    """
    blocks = blocks_of(generator, model)
    bounds = {"1 path": (1, "paths"), f"{paths} paths": (paths, "paths")}
    bounds["filter"] = (paths, "filter")

    def one(number: int, own: torch.Generator) -> dict[str, Tensor]:
        batch = batches[number].to(blocks.device)

        def draw(count: int, how: str) -> Tensor:
            walk = model.walk(batch.frames, batch.lengths, count, own, log_partition)
            return particles.log_likelihood(walk, batch.lengths, how, own)

        found = {
            name: torch.stack([draw(count, how) for _ in range(REPEATS)])
            for name, (count, how) in bounds.items()
        }
        return {**found, "length": batch.lengths - model.given_frames}

    parts = blocks.run("likelihood", range(len(batches)), one)
    length = _joined(parts, "length").double()
    totals = {name: _joined(parts, name, 1) for name in bounds}
    quoted = totals["filter" if method == "filter" else f"{paths} paths"]
    frames = length.sum()
    return Likelihood(
        float(quoted.mean(0).sum() / frames),
        float((quoted.mean(0) / length).mean()),
        float(quoted.diff(dim=0).square().sum().sqrt() / (2 * frames)),
        "lower bound",
        "particle filter" if method == "filter" else "importance-weighted paths",
        paths=paths,
        per_sequence_stderr=float(
            (quoted.diff(dim=0) / length).square().sum().sqrt() / (2 * len(length))
        ),
        first_frame_scored=not model.given_frames,
        bounds={name: float(total.mean(0).sum() / frames) for name, total in totals.items()},
    )


@torch.no_grad()
def evaluate(
    model: RecurrentModel,
    batches: BatchList,
    chains: int = 20,
    levels: int | None = None,
    target: float = 0.05,
    generator: torch.Generator | Blocks | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Likelihood:
    """Log-likelihood of every frame given the frames before it, averaged over a split.

    Exact for a tractable density. For an energy density the free energies of all frames are exact,
    and the mean of `log Z` is estimated to the target (`evaluation.mean_partition`).

    Where latents are drawn and fed back it is a lower bound, the mean over draws of them of
    `Σ_n log p(v_n | u_{n-1})` by the number of frames: Eq. 2 of the CGRNN paper. As many are drawn
    as the target asks for (`evaluation.drawn`). The standard error is the Monte-Carlo error of the
    bound, from the draws, the annealing and the choice of frames. By how much the bound lies below
    the likelihood (Jensen) is in neither.

    Args:
        model: in evaluation mode.
        batches: the split.
        chains: chains of the long annealing.
        levels: its levels; None doubles them until doubling moves the figure by less than 0.05.
        target: standard error at which to stop, nats a frame. Where more draws of latents than
            are made would be needed, the error stays above it and a warning says so.
        generator: source of the draws, or the blocks in which the work is done.
        say: called with a line about each stage.
    """
    blocks = blocks_of(generator, model)
    if model.likelihood_kind == "exact":
        return exactly(model, batches, blocks)
    drawn = Drawn(model, batches, target, blocks, say)
    first = batches[0].to(blocks.device)
    mean = MeanLogPartition(
        drawn.density,
        drawn.share,
        chains,
        levels,
        drawn.rest(),
        blocks,
        say,
        first.frames[model.scored(first.lengths, first.frames.shape[1])],
    )
    spread = drawn.spread(*mean.of_each)
    mean.reach(drawn.rest(spread.per_frame))
    stderr = math.hypot(mean.stderr, spread.per_frame**0.5)
    found = Likelihood(
        float(drawn.score.mean()) - mean.per_frame,
        float((drawn.score.flatten() * drawn.share).sum()) - mean.per_sequence,
        stderr,
        model.likelihood_kind,
        "annealed importance sampling",
        chains,
        mean.levels,
        round(float(mean.ess.mean()), 1),
        len(mean.long),
        mean.drift.mean,
        mean.reverse_gap.mean,
        mean.chain_levels + drawn.chain_levels,
        draws=drawn.count if drawn.varies else None,
        per_sequence_stderr=math.hypot(mean.per_sequence_stderr, spread.per_sequence**0.5),
        warnings=mean.warnings() + drawn.warnings(stderr),
        first_frame_scored=not model.given_frames,
    )
    most = drawn.score.flatten() - mean.bound
    return found.at_most(float(most.mean()), float((most * drawn.share).sum()))


def _joined(parts: list[dict[str, Any]], name: str, dim: int = 0) -> Tensor:
    return torch.cat([part[name] for part in parts], dim)
