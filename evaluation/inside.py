"""What goes on inside a trained model while it reads a sequence, as arrays.

Each function takes a model in evaluation mode and the frames of one sequence as the model sees
them, `(frames, V)`, continuous ones normalised: `(frames - mean) / std` of the data set. It returns
numpy arrays, which `evaluation.figures` draws. Nothing here trains or changes the model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cgrnn.layers import EnergyDensity, GaussianSpikeSlabRBM
from cgrnn.layers.gaussian_spike_slab import GaussianSpikeSlabRBMDensity
from cgrnn.layers.spike_slab import SpikeSlabLayer
from cgrnn.models import LGSSM, TSBN, NoteRNN, RecurrentModel, SequenceModel
from evaluation import ais, exact
from evaluation.result import LogPartition

SPIKE_DRAWS = 200  # over which the covariance is averaged
PATHS = 20  # of latents, over which the bound of a frame is averaged
CHAINS, LEVELS = 20, 500  # of annealing, for every frame of a sequence
WEIGHT_CHAINS, WEIGHT_LEVELS = 100, 1000  # for a few frames whose weights are looked at
_EXACT_COST = 10**9  # multiplications up to which states are enumerated: some seconds

Progress = Callable[[int, int], None]


def feature_name(model: SequenceModel) -> str:
    """What `activations` gives for a model.

    Example:
        >>> from cgrnn import CGRNN, VRNN
        >>> feature_name(CGRNN(visible_dim=4)), feature_name(VRNN(visible_dim=4))
        ('E[h⊙s | v, u]', 'posterior mean of z')
    """
    if isinstance(model, RecurrentModel) and model.has_latents:
        return "E[h⊙s | v, u]" if isinstance(model.layer, SpikeSlabLayer) else "E[h | v, u]"
    if isinstance(model, RecurrentModel | NoteRNN):
        return "recurrent state u, no latents"
    if isinstance(model, LGSSM):
        return "filtered mean of z"
    return "posterior mean of h" if isinstance(model, TSBN) else "posterior mean of z"


@torch.no_grad()
def activations(
    model: SequenceModel, frames: Tensor, generator: torch.Generator | None = None
) -> np.ndarray:
    """Hidden activations at every frame, `(frames, units)`: those that `feature_name` tells.

    Args:
        model: any model.
        frames: `(frames, V)`.
        generator: of the draws of earlier latents, in models that draw them.
    """
    return model.features(frames[None], generator)[0].numpy()


@torch.no_grad()
def prediction(
    model: SequenceModel,
    frames: Tensor,
    samples: int = 50,
    generator: torch.Generator | None = None,
) -> np.ndarray:
    """Every frame foretold from the frames before it alone, `(frames, V)` in the model's units.

    Args:
        model: a model of binary or continuous frames.
        frames: `(frames, V)`.
        samples: draws whose mean is given: of binary frames a probability.
        generator: source of the draws.
    """
    return model.predict(frames[None], generator, samples).mean(0)[0].numpy()


@torch.no_grad()
def reconstruction(
    model: SequenceModel,
    frames: Tensor,
    samples: int = 50,
    generator: torch.Generator | None = None,
) -> np.ndarray:
    """Every frame made again from latents that have seen it, `(frames, V)` in the model's units.

    A model without latents gives its prediction.

    Args: those of `prediction`.
    """
    return model.reconstruct(frames[None], generator, samples).mean(0)[0].numpy()


class Precisions(NamedTuple):
    """Of n chosen frames, all but the spikes `(n, V, V)` float64, in units of normalised frames.

    Attributes:
        spikes: the most probable h given `v_n` and `u_{n-1}`, `(n, H)`.
        precision: `C_h⁻¹` at those spikes.
        covariance: `C_h` at them.
        mean_precision: `E[C_h⁻¹ | v_n, u_{n-1}]`, exactly: the precision is linear in the spikes.
        mean_covariance: `E[C_h | v_n, u_{n-1}]`, a mean over draws.
    """

    spikes: np.ndarray
    precision: np.ndarray
    covariance: np.ndarray
    mean_precision: np.ndarray
    mean_covariance: np.ndarray


@torch.no_grad()
def precisions(
    model: SequenceModel,
    frames: Tensor,
    chosen: Sequence[int],
    draws: int = SPIKE_DRAWS,
    generator: torch.Generator | None = None,
) -> Precisions:
    """Conditional precision and covariance `C_h` of `v_n` given the spikes, at chosen frames.

    The spikes are those of the frame itself: given `v_n` and `u_{n-1}` they are independent, and
    the most probable h has `h_i = 1` where `p(h_i = 1 | v_n, u_{n-1}) > ½`.

    Formula: `C_h⁻¹ = diag(Λ̃ + Φᵀh) - W diag(h/α) Wᵀ` (`density.precision`).

    Args:
        model: one with a spike-and-slab density over continuous frames.
        frames: `(frames, V)`.
        chosen: numbers of the frames.
        draws: of the spikes, for `mean_covariance`.
        generator: source of the draws.

    Raises:
        ValueError: for any other model; says why it has no such matrix.
    """
    if not (isinstance(model, RecurrentModel) and isinstance(model.layer, GaussianSpikeSlabRBM)):
        raise ValueError(_no_precision(model))
    density: GaussianSpikeSlabRBMDensity = model.density(frames[None], generator)[0, list(chosen)]
    v = frames[list(chosen)]
    probability = torch.sigmoid(density.hidden_logits(v))
    spikes = (probability > 0.5).to(v.dtype)
    precision, mean_precision = density.precision(spikes), density.precision(probability)
    total = torch.zeros_like(precision)
    for _ in range(draws):
        total += _inverse(density.precision(density.sample_spikes(v, generator)))
    parts = (spikes, precision, _inverse(precision), mean_precision, total / draws)
    return Precisions(*(part.numpy() for part in parts))


def _inverse(precision: Tensor) -> Tensor:
    return torch.cholesky_inverse(torch.linalg.cholesky(precision))


def _no_precision(model: SequenceModel) -> str:
    reason = "it has no spikes"
    if isinstance(model, RecurrentModel) and model.has_latents:
        reason = "its covariance given h is diagonal, the same for every h"
        if model.visible == "binary":
            reason = "units of binary frames are independent given h and s: there is no covariance"
    return (
        f"{model.name}: no conditional precision C_h⁻¹ of {model.visible} frames ({reason}); "
        "cgrnn and rnn-ssrbm over continuous frames have one"
    )


class Energies(NamedTuple):
    """Of every frame of a sequence, `(frames,)` float64 in nats; what a model lacks is None.

    Attributes:
        log_prob: `log p(v_n | v_<n)`, or its bound; NaN at frames that are given, not scored.
        log_prob_stderr: its standard error, None where it is exact.
        kind: "exact", "estimate" or "lower bound".
        free_energy: `F(v_n)` under `u_{n-1}`.
        log_z: `log Z(u_{n-1})`, with its standard error.
        how: in words, how `log_prob` was found.
    """

    log_prob: np.ndarray
    log_prob_stderr: np.ndarray | None
    kind: str
    how: str
    free_energy: np.ndarray | None = None
    log_z: np.ndarray | None = None
    log_z_stderr: np.ndarray | None = None


@torch.no_grad()
def energies(
    model: SequenceModel,
    frames: Tensor,
    chains: int = CHAINS,
    levels: int = LEVELS,
    paths: int = PATHS,
    generator: torch.Generator | None = None,
    progress: Progress = lambda done, total: None,
) -> Energies:
    """Free energy, partition function and likelihood of every frame.

    Args:
        model: any model.
        frames: `(frames, V)`.
        chains, levels: of annealed importance sampling, for energy models that are too large to be
            enumerated in some seconds.
        paths: of latents, in models whose likelihood is a bound: the mean over them is given.
        generator: source of the draws.
        progress: called with the chain-levels done and all of them.
    """
    if isinstance(model, RecurrentModel) and model.has_latents:
        density = model.density(frames[None], generator)[0]
        found = _partition(density, chains, levels, generator, progress)
        free_energy = density.free_energy(frames).double()
        log_prob = _scored(model, -free_energy - found.log_z)
        kind, how = model.likelihood_kind, "Log Z by enumeration"
        if kind == "estimate":  # but for log Z it is exact
            kind = found.kind
        if found.kind != "exact":
            how = f"Log Z by annealing, {chains} chains × {levels} levels; bands: a standard error"
        parts = (free_energy, found.log_z, found.stderr)
        return Energies(
            log_prob.numpy(), found.stderr.numpy(), kind, how, *(part.numpy() for part in parts)
        )
    once = model.likelihood_kind == "exact"
    length = torch.tensor([len(frames)])
    inside = model.scored(length, len(frames))

    def score() -> Tensor:
        found = torch.full((len(frames),), torch.nan, dtype=torch.float64)
        scores = model.scores(frames[None], length, inside, lambda density: None, generator)
        found[inside[0]] = scores.log_prob
        return found

    if once:
        return Energies(score().numpy(), None, "exact", "")
    drawn = torch.stack([score() for _ in range(paths)])
    error = drawn.std(0) / paths**0.5
    how = (
        f"The bound is of the sum over frames; mean of {paths} draws; bands: a standard error of "
        "that mean, without the gap from the bound up to the likelihood"
    )
    return Energies(drawn.mean(0).numpy(), error.numpy(), model.likelihood_kind, how)


def _scored(model: SequenceModel, values: Tensor) -> Tensor:
    values[: model.given_frames] = torch.nan
    return values


@torch.no_grad()
def log_weights(
    model: SequenceModel,
    frames: Tensor,
    chosen: Sequence[int],
    chains: int = WEIGHT_CHAINS,
    levels: int = WEIGHT_LEVELS,
    generator: torch.Generator | None = None,
    progress: Progress = lambda done, total: None,
) -> LogPartition:
    """`log Z(u_{n-1})` of chosen frames by annealing, with the log-weights `(chains, n)`.

    Args:
        model: one with an energy density.
        frames: `(frames, V)`.
        chosen: numbers of the frames.
        chains, levels: of annealed importance sampling.
        generator: source of the draws.
        progress: called with the chain-levels done and all of them.

    Raises:
        ValueError: for a model without partition functions.
    """
    if not (isinstance(model, RecurrentModel) and model.has_latents):
        raise ValueError(
            f"{model.name}: has no partition function, so no annealing weights; cgrnn, rnn-ssrbm "
            "and rnn-rbm have"
        )
    density = model.density(frames[None], generator)[0, list(chosen)]
    return _annealed(density, chains, levels, generator, progress)


@torch.no_grad()
def filters(model: SequenceModel) -> np.ndarray:
    """Couplings `W` of the frame's units with the hidden ones, in force, `(V, H)`.

    Raises:
        ValueError: for a model without such couplings; says which have.
    """
    layer: Any = getattr(model, "layer", None)
    if not hasattr(layer, "W"):
        raise ValueError(
            f"{model.name}: its frame density has no couplings W to show; cgrnn, rnn-ssrbm, "
            "rnn-rbm, rnn-nade, lstm-nade and rnn-rnade have"
        )
    context = layer.W.new_zeros(layer.context_dim)
    # Constructions of W from parameters (the spectral one) happen in the density.
    density = layer(context) if layer.context_dim else layer(None)
    weights: Tensor = density.W if isinstance(density, EnergyDensity) else layer.W
    return weights.numpy()


def _partition(
    density: Any,
    chains: int,
    levels: int,
    generator: torch.Generator | None,
    progress: Progress,
) -> LogPartition:
    if _enumeration_cost(density) <= _EXACT_COST:
        return exact.result(density)
    return _annealed(density, chains, levels, generator, progress)


def _enumeration_cost(density: Any) -> int:
    """Multiplications of `exact.log_partition`; without end where it refuses."""
    visible, hidden = density.visible_dim, density.hidden_dim
    frames = density.batch_shape.numel()
    if density.frames is None:
        return _EXACT_COST + 1
    if density.frames == "continuous":
        return frames * visible**3 << hidden if hidden <= exact.MAX_HIDDEN else _EXACT_COST + 1
    return frames * visible * hidden << visible if visible <= exact.MAX_VISIBLE else _EXACT_COST + 1


def _annealed(
    density: Any,
    chains: int,
    levels: int,
    generator: torch.Generator | None,
    progress: Progress,
) -> LogPartition:
    total, done = chains * levels * density.batch_shape.numel(), 0

    def advance(more: int) -> None:
        nonlocal done
        done += more
        progress(min(done, total), total)

    return ais.log_partition(density, chains, levels, generator, progress=advance)
