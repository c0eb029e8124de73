"""Every option of training, with its default: what `cgrnn train --help` and its YAML files show.

This module does not load torch, so that help and errors come at once. The models' own signatures
carry the same names and defaults (a test holds the two together).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Feedback = Literal["visible", "latent", "full"]
Latents = Literal["mean", "sample"]
Cell = Literal["gru", "lstm", "tanh"]


def option(default: Any, text: str) -> Any:
    """A dataclass field with its help text."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class RNNOptions:
    """Options of the plain RNN."""

    recurrent_dim: int = option(300, "size of the recurrent state u")
    mlp_dims: tuple[int, ...] = option((), "sizes of the ReLU layers before it, as [400,400]")
    cell: Cell = option("gru", "recurrent cell")
    dropout: float = option(0.2, "probability of dropping inputs and contexts in training")


@dataclass(frozen=True)
class CGRNNOptions(RNNOptions):
    """Options of the models with a restricted Boltzmann machine over the frame."""

    hidden_dim: int = option(200, "hidden units of the frame density")
    feedback: Feedback = option("full", "what drives the transition")
    latents: Latents = option("mean", "latents fed back: expected, or drawn as in the paper")
    cd_steps: int = option(5, "Gibbs sweeps of contrastive divergence")


@dataclass(frozen=True)
class RNNRBMOptions(CGRNNOptions):
    """Options of the RNN-RBM."""

    feedback: Feedback = option("visible", "what drives the transition")


MODEL_OPTIONS: dict[str, type[RNNOptions]] = {
    "cgrnn": CGRNNOptions,
    "rnn-rbm": RNNRBMOptions,
    "rnn": RNNOptions,
}


@dataclass(frozen=True)
class TrainingOptions:
    """How a model is trained and watched."""

    max_epochs: int = option(600, "epochs at the most; the learning rate's schedule spans them")
    max_minutes: float | None = option(
        None, "minutes at the most, validation included; the schedule then spans them"
    )
    batch_size: int = option(16, "sequences a step")
    segment_frames: int = option(200, "longer training sequences are cut into pieces of so many")
    transpose: int = option(5, "semitones, at the most, by which a sequence is moved up or down")
    optimizer: Literal["adamw", "adam", "sgd"] = option("adamw", "optimiser")
    learning_rate: float = option(2e-3, "learning rate at the start")
    schedule: Literal["cosine", "constant"] = option("cosine", "cosine: down to a twentieth")
    weight_decay: float = option(0.01, "weight decay")
    clip_norm: float = option(1.0, "largest norm of the gradient")
    persistent: bool = option(False, "persistent CD: a chain for each frame that never restarts")
    validate_every: int = option(10, "epochs between validations")
    patience: int = option(15, "validations without gain before training stops")
    valid_frames: int = option(200, "validation frames whose partition function is estimated")
    valid_chains: int = option(20, "chains of annealed importance sampling in validation")
    valid_levels: int = option(500, "levels of annealed importance sampling in validation")
    precision: Literal["32-true", "64-true", "bf16-mixed"] = option("32-true", "arithmetic")
    accelerator: Literal["auto", "cpu", "gpu"] = option("auto", "where to train")
    seed: int = option(0, "seed of weights, batches, augmentation and draws")
