"""Every option of training, with its default: what `cgrnn train --help` and its YAML files show.

This module does not load torch, so that help and errors come at once. The models' own signatures
carry the same names and defaults (a test holds the two together).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Feedback = Literal["visible", "latent", "full"]
Latents = Literal["mean", "sample"]
Cell = Literal["gru", "lstm", "tanh"]
Construction = Literal["by spike", "spectral"]
Target = Literal["classes", "integers"]
Inference = Literal["smoothing", "filtering"]

MARKS = {"exact": "=", "estimate": "≈", "lower bound": "≥", "upper bound": "≤"}
"""How a likelihood of each kind is marked."""


class Limit(NamedTuple):
    """Which numbers an option takes: in words, and as a test of one."""

    text: str
    holds: Callable[[float], bool]


AT_LEAST_ONE = Limit("at least 1", lambda x: x >= 1)
AT_LEAST_TWO = Limit("at least 2", lambda x: x >= 2)  # as chains: one alone has no error
NOT_NEGATIVE = Limit("at least 0", lambda x: 0 <= x < math.inf)
POSITIVE = Limit("above 0", lambda x: 0 < x < math.inf)
SHARE = Limit("at least 0 and below 1", lambda x: 0 <= x < 1)
UP_TO_ONE = Limit("0 to 1", lambda x: 0 <= x <= 1)
SEED = Limit("0 to 4294967295", lambda x: 0 <= x < 2**32)


def option(default: Any, text: str, limit: Limit | None = None) -> Any:
    """A dataclass field with its help text and the numbers it takes."""
    return field(default=default, metadata={"help": text, "limit": limit})


@dataclass(frozen=True)
class RecurrentOptions:
    """Options of every model with a recurrence over the frames."""

    recurrent_dim: int = option(300, "size of the recurrent state u", AT_LEAST_ONE)
    mlp_dims: tuple[int, ...] = option(
        (), "sizes of the ReLU layers before it, as [400,400]", AT_LEAST_ONE
    )
    cell: Cell = option("gru", "recurrent cell")
    dropout: float = option(0.2, "probability of dropping inputs and contexts in training", SHARE)


@dataclass(frozen=True)
class RNNOptions(RecurrentOptions):
    """Options of the plain RNN."""

    layers: int = option(1, "recurrent layers", AT_LEAST_ONE)


@dataclass(frozen=True)
class RNNNADEOptions(RNNOptions):
    """Options of the RNN-NADE."""

    hidden_dim: int = option(200, "hidden units of the NADE", AT_LEAST_ONE)


@dataclass(frozen=True)
class RNNGMMOptions(RNNOptions):
    """Options of the RNN-GMM."""

    components: int = option(10, "Gaussians in the mixture", AT_LEAST_ONE)


@dataclass(frozen=True)
class RNNRNADEOptions(RNNOptions):
    """Options of the RNN-RNADE."""

    hidden_dim: int = option(50, "hidden units of the RNADE", AT_LEAST_ONE)
    components: int = option(5, "Gaussians for each unit", AT_LEAST_ONE)


@dataclass(frozen=True)
class RBMOptions(RecurrentOptions):
    """Options of the models with a restricted Boltzmann machine over the frame."""

    hidden_dim: int = option(200, "hidden units of the frame density", AT_LEAST_ONE)
    feedback: Feedback = option("full", "what drives the transition")
    latents: Latents = option("mean", "latents fed back: expected, or drawn as in the paper")
    cd_steps: int = option(5, "Gibbs sweeps of contrastive divergence", AT_LEAST_ONE)
    restarts: float = option(
        0.1, "share of frames with a second chain, from noise; 0 lets spurious modes grow", SHARE
    )


@dataclass(frozen=True)
class RNNRBMOptions(RBMOptions):
    """Options of the RNN-RBM."""

    feedback: Feedback = option("visible", "what drives the transition")


@dataclass(frozen=True)
class CGRNNOptions(RBMOptions):
    """Options of the models with a spike-and-slab RBM over the frame."""

    construction: Construction = option(
        "by spike", "continuous frames: how the density is made to exist"
    )


@dataclass(frozen=True)
class RNNSSRBMOptions(CGRNNOptions):
    """Options of the RNN-ssRBM."""

    feedback: Feedback = option("visible", "what drives the transition")


@dataclass(frozen=True)
class LSTMNADEOptions(RNNOptions):
    """Options of the LSTM-NADE."""

    recurrent_dim: int = option(200, "size of a layer", AT_LEAST_ONE)
    cell: Cell = option("lstm", "recurrent cell")
    layers: int = option(2, "recurrent layers", AT_LEAST_ONE)
    hidden_dim: int = option(200, "hidden units of the NADE or RNADE", AT_LEAST_ONE)
    components: int = option(5, "Gaussians for each unit of a continuous frame", AT_LEAST_ONE)
    window: int = option(32, "recurrent states that the attention sees", AT_LEAST_TWO)


@dataclass(frozen=True)
class NoteRNNOptions:
    """Options of the baselines on sequences of notes."""

    target: Target = option("classes", "softmax over notes and chords, or regression of pitches")
    window: int = option(30, "notes that are seen", AT_LEAST_ONE)
    recurrent_dim: int = option(128, "size of a layer", AT_LEAST_ONE)
    layers: int = option(1, "recurrent layers", AT_LEAST_ONE)
    cell: Cell = option("lstm", "recurrent cell")


@dataclass(frozen=True)
class LGSSMOptions:
    """Options of the linear-Gaussian state-space model."""

    latent_dim: int = option(50, "size of the state", AT_LEAST_ONE)


@dataclass(frozen=True)
class TSBNOptions:
    """Options of the temporal sigmoid belief network."""

    latent_dim: int = option(100, "binary latents of a frame", AT_LEAST_ONE)
    baseline_dim: int = option(100, "hidden units of the gradient's baseline", AT_LEAST_ONE)


@dataclass(frozen=True)
class STORNOptions:
    """Options of the STORN."""

    latent_dim: int = option(100, "Gaussian latents of a frame", AT_LEAST_ONE)
    recurrent_dim: int = option(300, "size of the recurrent states", AT_LEAST_ONE)


@dataclass(frozen=True)
class SRNNOptions(STORNOptions):
    """Options of the SRNN."""

    mlp_dim: int = option(500, "size of the layers between", AT_LEAST_ONE)
    inference: Inference = option("smoothing", "what the posterior sees: all frames, or no later")
    residual: bool = option(True, "the posterior's mean is a correction of the prior's")
    clip: float = option(3.0, "bound of the leaky units", POSITIVE)


@dataclass(frozen=True)
class VRNNOptions(STORNOptions):
    """Options of the VRNN."""

    feature_dim: int = option(200, "size of the layers between", AT_LEAST_ONE)


@dataclass(frozen=True)
class ZForcingOptions(VRNNOptions):
    """Options of Z-forcing."""

    auxiliary: float = option(0.0025, "weight of the auxiliary cost", NOT_NEGATIVE)


@dataclass(frozen=True)
class NASMCOptions(VRNNOptions):
    """Options of the NASMC."""

    particles: int = option(8, "of the filter that it is trained by", AT_LEAST_TWO)


MODEL_OPTIONS: dict[str, type] = {
    "cgrnn": CGRNNOptions,
    "rnn-ssrbm": RNNSSRBMOptions,
    "rnn-rbm": RNNRBMOptions,
    "rnn": RNNOptions,
    "rnn-nade": RNNNADEOptions,
    "lstm-nade": LSTMNADEOptions,
    "rnn-gmm": RNNGMMOptions,
    "rnn-rnade": RNNRNADEOptions,
    "lgssm": LGSSMOptions,
    "tsbn": TSBNOptions,
    "storn": STORNOptions,
    "vrnn": VRNNOptions,
    "srnn": SRNNOptions,
    "z-forcing": ZForcingOptions,
    "nasmc": NASMCOptions,
    "note-rnn": NoteRNNOptions,
}


@dataclass(frozen=True)
class TrainingOptions:
    """How a model is trained and watched."""

    max_epochs: int = option(
        300, "epochs at the most; the learning rate's schedule spans them", AT_LEAST_ONE
    )
    max_minutes: float | None = option(
        None, "minutes at the most, validation included; the schedule then spans them", POSITIVE
    )
    batch_size: int = option(16, "sequences a step", AT_LEAST_ONE)
    segment_frames: int = option(
        200, "longer training sequences are cut into pieces of so many", AT_LEAST_ONE
    )
    transpose: int = option(
        5,
        "semitones, at the most, by which a sequence of rolls is moved up or down",
        NOT_NEGATIVE,
    )
    optimizer: Literal["adamw", "adam", "sgd"] = option("adamw", "optimiser")
    learning_rate: float = option(2e-3, "learning rate at the start", POSITIVE)
    schedule: Literal["cosine", "constant", "exponential"] = option(
        "cosine", "cosine: down to a twentieth; exponential: see --decay"
    )
    decay: float = option(
        1.2, "exponential schedule: what the learning rate is divided by each epoch", POSITIVE
    )
    decay_after: int = option(20, "exponential schedule: epochs before it begins", NOT_NEGATIVE)
    weight_decay: float = option(0.01, "weight decay", NOT_NEGATIVE)
    clip_norm: float = option(1.0, "largest norm of the gradient", POSITIVE)
    persistent: bool = option(False, "persistent CD: a chain for each frame that never restarts")
    kl_start: float = option(
        0.2, "weight of the KL at first, in models with Gaussian latents", UP_TO_ONE
    )
    kl_epochs: int = option(20, "epochs over which that weight rises to 1", NOT_NEGATIVE)
    validate_every: int = option(20, "epochs between validations", AT_LEAST_ONE)
    patience: int = option(10, "validations without gain before training stops", AT_LEAST_ONE)
    valid_frames: int = option(
        100, "validation frames whose partition function is estimated", AT_LEAST_ONE
    )
    valid_chains: int = option(
        20, "chains of annealed importance sampling in validation", AT_LEAST_TWO
    )
    valid_levels: int = option(
        1000, "levels of annealed importance sampling in validation", AT_LEAST_ONE
    )
    workers: int | None = option(
        None, "processes that read batches; default: one for data left on disk", NOT_NEGATIVE
    )
    precision: Literal["32-true", "64-true", "bf16"] = option(
        "32-true", "arithmetic; bf16: 32-true, but products of bfloat16 numbers in training steps"
    )
    accelerator: Literal["auto", "cpu", "gpu"] = option("auto", "where to train")
    seed: int = option(0, "seed of weights, batches, augmentation and draws", SEED)
