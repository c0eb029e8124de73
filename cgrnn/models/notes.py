"""Baselines on sequences of notes: a recurrent network over a window predicts the next note."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss, pad
from torch.special import erfcx

from cgrnn.layers.tractable import (
    TractableDensity,
    categorical,
    check_context,
    check_sizes,
    gaussian,
)
from cgrnn.models.sequence import Estimate, Scores, SequenceModel
from cgrnn.transition import Transition

TARGETS = ("classes", "integers")
NOT_BEGUN = -1
"""Stands in a window for what would be before the piece."""

MIN_DEVIATION = 0.05
"""Least deviation of a rounded Gaussian, in classes: all its mass is on one class as it is."""


def log_normal_cdf(x: Tensor) -> Tensor:
    """`log Φ(x)`. The gradient of torch's `log_ndtr` loses its digits, and then all, below -100."""
    below, above = x.clamp(max=0), x.clamp(min=0)
    tail = (0.5 * erfcx(-below / math.sqrt(2))).log() - 0.5 * below.square()
    return torch.where(x < 0, tail, torch.log1p(-0.5 * torch.erfc(above / math.sqrt(2))))


class NoteDensity(TractableDensity):
    """Probabilities of the classes 0 … K-1, as a density over frames of one unit."""

    @property
    @abstractmethod
    def choice(self) -> Tensor:
        """The class that it names where it may name one, `(*B, 1)`."""

    @property
    def visible_dim(self) -> int:
        return 1


@dataclass(frozen=True, eq=False)
class CategoricalDensity(NoteDensity):
    """`p(k) = softmax(l)_k`.

    Args:
        logits: l, `(*B, K)`.
    """

    logits: Tensor

    @property
    def batch_shape(self) -> torch.Size:
        return self.logits.shape[:-1]

    @property
    def choice(self) -> Tensor:
        """The likeliest class, `(*B, 1)`."""
        return self.logits.argmax(-1, keepdim=True).to(self.logits.dtype)

    def log_prob(self, v: Tensor) -> Tensor:
        self._check_frames(v)
        log_p = self.logits.log_softmax(-1).expand(*v.shape[:-1], -1)
        return log_p.gather(-1, v.round().long()).squeeze(-1)

    @torch.no_grad()
    def sample(self, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        drawn = categorical(self.logits.expand(*shape, *self.logits.shape), generator)
        return drawn.unsqueeze(-1).to(self.logits.dtype)

    def _at_temperature(self, temperature: float) -> Any:
        """`p(k)^(1/T) / Z_T`: the logits over T."""
        return replace(self, logits=self.logits / temperature)


@dataclass(frozen=True, eq=False)
class RoundedGaussianDensity(NoteDensity):
    """A Gaussian rounded to the nearest class: `p(k) = Φ((k+½-m)/σ) - Φ((k-½-m)/σ)`.

    What lies beyond the first or the last class belongs to it, so the classes sum to one.

    Args:
        mean: m, in classes, `(*B, 1)`.
        log_deviation: log σ, `()`.
        classes: K.
    """

    mean: Tensor
    log_deviation: Tensor
    classes: int

    @property
    def batch_shape(self) -> torch.Size:
        return self.mean.shape[:-1]

    @property
    def choice(self) -> Tensor:
        """The class nearest to the mean, `(*B, 1)`."""
        return self._rounded(self.mean)

    def log_prob(self, v: Tensor) -> Tensor:
        self._check_frames(v)
        precision = (-self.log_deviation).exp()
        low, high = (precision * (v + edge - self.mean) for edge in (-0.5, 0.5))
        first, last = v <= 0, v >= self.classes - 1
        # The same interval mirrored to the lower tail, where log Φ keeps its digits.
        mirrored = last | (~first & (low + high > 0))
        low, high = torch.where(mirrored, -high, low), torch.where(mirrored, -low, high)
        log_p, log_below = log_normal_cdf(high), log_normal_cdf(low)
        ratio = torch.where(first | last, -1.0, log_below - log_p)
        return torch.where(first | last, log_p, log_p + (-ratio.expm1()).log()).squeeze(-1)

    @torch.no_grad()
    def sample(self, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        mean = self.mean.expand(*shape, *self.mean.shape)
        return self._rounded(gaussian(mean, self.log_deviation, generator))

    def _rounded(self, v: Tensor) -> Tensor:
        return v.round().clamp(0, self.classes - 1)

    def _at_temperature(self, temperature: float) -> Any:
        """The variance of the Gaussian that is rounded times T."""
        return replace(self, log_deviation=self.log_deviation + 0.5 * math.log(temperature))


class Categorical(nn.Module):
    """Classes of a note, their logits affine in the context.

    Args:
        classes: K.
        context_dim: size of the context.
    """

    def __init__(self, classes: int, context_dim: int) -> None:
        super().__init__()
        self.logits = nn.Linear(context_dim, classes)

    def forward(self, context: Tensor) -> CategoricalDensity:
        return CategoricalDensity(self.logits(context))


class RoundedGaussian(nn.Module):
    """The number of a class by linear regression on the context, with one deviation for all.

    Args:
        classes: K; the regression is of the number scaled to 0 … 1.
        context_dim: size of the context.
    """

    def __init__(self, classes: int, context_dim: int) -> None:
        super().__init__()
        self.context_dim, self.scale = context_dim, classes - 1
        self.mean = nn.Linear(context_dim, 1)
        nn.init.constant_(self.mean.bias, 0.5)
        self.raw_deviation = nn.Parameter(torch.tensor(math.log(0.1 * self.scale)))

    def forward(self, context: Tensor) -> RoundedGaussianDensity:
        check_context(context, self.context_dim)
        floor = self.raw_deviation.new_full((), math.log(MIN_DEVIATION))
        log_deviation = torch.logaddexp(self.raw_deviation, floor)
        return RoundedGaussianDensity(
            self.scale * self.mean(context), log_deviation, self.scale + 1
        )


class NoteRNN(SequenceModel):
    """A recurrent network that reads the last W notes and predicts the next one.

    Formula: `p(v_n | v_<n) = layer(RNN(x(v_{n-W}), …, x(v_{n-1})))`, the RNN starting anew in
    every window. Frames are `(batch, frames, 1)`, the numbers of classes.
        * target "classes": `x` is an embedding, the layer a softmax over all classes. The loss is
          `-log p`.
        * target "integers": `x` is the number scaled to 0 … 1, the layer a linear regression of
          it. The loss is the mean squared error, and beside it `-log p` of a Gaussian rounded to
          the classes, which trains nothing but its deviation.

    Source: Deproost & Saby, "An application with RNN", 2019, on Chopin's nocturnes: windows of 30,
    "tanh", "lstm" and "gru", 1 to 4 layers of 64 or 128. Departures: the classes are embedded,
    where the paper feeds their scaled numbers, which say nothing of a chord, and found that the
    same note always came out; the first state is learned; the regression has a likelihood; and
    what a window reaches for before a piece begins is a mark of its own, so that all notes have a
    probability and pieces of any length a likelihood. The paper trains and scores full windows
    alone: that is `given_frames = window`.

    Args:
        visible_dim: always 1.
        classes: K, notes and chords in the vocabulary.
        target: "classes" or "integers".
        window: W, notes that are seen.
        recurrent_dim: units of a layer.
        layers: recurrent layers, one upon the other.
        cell: "gru", "lstm" or "tanh".
        visible: always "notes".

    Example:
        >>> model = NoteRNN(classes=128, window=30, recurrent_dim=8)
        >>> model.generate(frames_to_make=3, batch=2).shape
        torch.Size([2, 3, 1])
    """

    name = "note-rnn"
    kinds = ("notes",)

    def __init__(
        self,
        visible_dim: int = 1,
        classes: int = 128,
        target: str = "classes",
        window: int = 30,
        recurrent_dim: int = 128,
        layers: int = 1,
        cell: str = "lstm",
        visible: str = "notes",
    ) -> None:
        super().__init__(visible_dim, visible)
        check_sizes(0, window=window, recurrent_dim=recurrent_dim, layers=layers)
        if classes < 2:
            raise ValueError(f"classes: expected at least 2, got {classes}")
        if visible_dim != 1:
            raise ValueError(f"visible_dim: a note is one number, expected 1, got {visible_dim}")
        if target not in TARGETS:
            raise ValueError(f"target: expected one of {', '.join(TARGETS)}, got {target!r}")
        self.classes, self.target, self.window = classes, target, window
        inputs = recurrent_dim if target == "classes" else 1
        self.not_begun = nn.Parameter(torch.zeros(inputs))
        if target == "classes":
            self.embedding = nn.Embedding(classes, inputs)
        self.transition = Transition(inputs, 0, recurrent_dim, cell=cell, layers=layers)
        head = Categorical if target == "classes" else RoundedGaussian
        self.layer = head(classes, recurrent_dim)

    @property
    def likelihood_kind(self) -> str:
        return "exact"

    def windows(self, frames: Tensor) -> Tensor:
        """The W classes before every frame, and those before the frame to come,
        `(batch, frames + 1, W)`; `NOT_BEGUN` where the piece has not.

        Raises:
            ValueError: a class is not of the vocabulary.
        """
        notes = frames.squeeze(-1).round().long()
        if notes.numel() and not (notes.min() >= 0 and notes.max() < self.classes):
            raise ValueError(
                f"frames: expected classes 0 to {self.classes - 1}, got {int(notes.min())} to "
                f"{int(notes.max())}; give the model the vocabulary's size as `classes`"
            )
        return pad(notes, (self.window, 0), value=NOT_BEGUN).unfold(1, self.window, 1)

    def summaries(self, windows: Tensor) -> Tensor:
        """What the network makes of windows `(*B, W)`, `(*B, R)`."""
        windows = windows.unsqueeze(-1)
        if self.target == "classes":
            known = self.embedding(windows.squeeze(-1).clamp(min=0))
        else:
            known = windows.to(self.not_begun.dtype) / (self.classes - 1)
        inputs = torch.where(windows == NOT_BEGUN, self.not_begun, known)
        _, state = self.transition(inputs.flatten(0, -3))
        return self.transition.context(state).unflatten(0, windows.shape[:-2])

    def density(self, frames: Tensor, where: Tensor | None = None) -> Any:
        """`p(v_n | v_<n)` of all frames, batch shape `(batch, frames)`; or of those that `where`
        `(batch, frames)` chooses, end to end."""
        windows = self.windows(frames)[:, :-1]
        return self.layer(self.summaries(windows if where is None else windows[where]))

    def loss(
        self,
        frames: Tensor,
        lengths: Tensor,
        generator: torch.Generator | None = None,
        chains: Tensor | None = None,
    ) -> Tensor:
        """`-log p` of classes; of integers, see above."""
        scored = self.scored(lengths, frames.shape[1])
        density, v = self.density(frames, scored), frames[scored]
        if isinstance(density, CategoricalDensity):
            return -density.log_prob(v).mean()
        scale = self.classes - 1
        squared_error = mse_loss(density.mean / scale, v / scale)
        self.monitored = {"squared_error": squared_error.detach()}
        still = RoundedGaussianDensity(density.mean.detach(), density.log_deviation, self.classes)
        return squared_error - still.log_prob(v).mean()

    @torch.no_grad()
    def scores(
        self,
        frames: Tensor,
        lengths: Tensor,
        chosen: Tensor,
        estimate: Estimate,
        generator: torch.Generator | None = None,
    ) -> Scores:
        return Scores(self.density(frames, chosen).log_prob(frames[chosen]).double())

    @torch.no_grad()
    def walk(
        self,
        frames: Tensor,
        lengths: Tensor,
        paths: int,
        generator: torch.Generator | None = None,
        log_partition: Callable[[Any], Tensor] | None = None,
    ) -> _OnePath:
        """Without latents all paths are one, and each weight is `p(v_n | v_<n)`."""
        scored = self.scored(lengths, frames.shape[1])
        log_prob = self.density(frames).log_prob(frames)
        return _OnePath(torch.where(scored, log_prob, 0.0), paths)

    @torch.no_grad()
    def deviations(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """How far the choice for every scored note lies above the note, `(n,)`.

        Zeros are hits of the top-1 accuracy; where the classes are pitches the numbers are
        semitones.
        """
        scored = self.scored(lengths, frames.shape[1])
        return (self.density(frames, scored).choice - frames[scored]).squeeze(-1)

    @torch.no_grad()
    def predict(
        self, frames: Tensor, generator: torch.Generator | None = None, samples: int = 1
    ) -> Tensor:
        """Draw every frame given the frames before it alone, `(samples, batch, frames, 1)`."""
        drawn: Tensor = self.density(frames).sample((samples,), generator)
        return drawn

    @torch.no_grad()
    def reconstruct(
        self,
        frames: Tensor,
        generator: torch.Generator | None = None,
        samples: int = 1,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """The prediction: there are no latents."""
        return self.predict(frames, generator, samples)

    @torch.no_grad()
    def features(
        self,
        frames: Tensor,
        generator: torch.Generator | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """State of the network after the window that ends with the frame, `(batch, frames, R)`."""
        return self.summaries(self.windows(frames)[:, 1:])

    @torch.no_grad()
    def generate(
        self,
        frames_to_make: int,
        batch: int = 1,
        prime: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        made = self._primed(frames_to_make, batch, prime)
        for _ in range(frames_to_make):
            window = self.windows(made[:, -self.window :])[:, -1]
            density = self.layer(self.summaries(window)).at_temperature(self.temperature)
            v = density.sample((), generator)
            made = torch.cat([made, v.unsqueeze(1)], 1)
        return made


class _OnePath:
    """`samplers.particles.Walk` where nothing is drawn.

    Args:
        log_prob: `(batch, frames)`.
        paths: K, all of them the same.
    """

    def __init__(self, log_prob: Tensor, paths: int) -> None:
        self.steps, self.paths = iter(log_prob.unbind(1)), paths

    def step(self) -> Tensor:
        return next(self.steps).expand(self.paths, -1)

    def select(self, ancestors: Tensor) -> None:
        """There is nothing to exchange."""
