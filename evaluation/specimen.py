"""A few densities of a class with moderate parameters, by which its methods are held together."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

ERRORS_ALLOWED = 7.0  # standard errors: a mean of some hundred draws is never off by so many
RARE = 16.0  # nor does an event that is expected less than once occur so often
_DENSITIES = 2
_TEMPERATURE = 1.5  # moves precisions that are all 1, and would hide a fault, away from 1
_BIAS = 1.5  # units are on with a probability between 0.18 and 0.82
DRAWS, PILOT, TRIALS = 1024, 32, 40
_NO_SPREAD = 1e-10
_PIECE = 256  # frames at a time
_BELOW_ONE, _ABOVE_ONE = 0.4, 2.5


class Units(NamedTuple):
    """Independent units: mean and variance `(K, V)`, and the log of their total mass `(K,)`."""

    mean: Tensor
    variance: Tensor
    log_mass: Tensor


@dataclass(frozen=True)
class Specimen:
    """Some densities of a class, in double precision where the class can be.

    Couplings and the fields that are its own come from the density that was given, at a temperature
    of 1.5. Biases, which a context may move anywhere, are drawn anew: a fault shows whatever the
    given ones are, and an untrained model is as good as any.

    Attributes:
        density: batch shape `(K,)`.
        name: of its class.
        frames: what the class declares.
        random: source of all draws.
        rounding: relative differences that mean nothing.
        deviations: of the units at `beta = 0` if they are continuous, else 1, `(K, V)`.
    """

    density: Any
    name: str
    frames: str | None
    random: torch.Generator
    rounding: float
    deviations: Tensor

    @classmethod
    def of(cls, density: Any) -> Specimen:
        """From a density with batch shape `(*B,)`, not empty."""
        flat = density.flatten()
        index = torch.linspace(0, flat.batch_shape[0] - 1, _DENSITIES).round().long()
        some = _in_double(flat[index.to(flat.weight.device)]).at_temperature(_TEMPERATURE)
        random = torch.Generator(some.weight.device).manual_seed(0)
        specimen = cls(
            some,
            type(density).__name__,
            density.frames,
            random,
            rounding=1e-6 if some.weight.dtype == torch.float64 else 2e-3,
            deviations=torch.ones_like(some.visible_bias),
        )
        if density.frames == "continuous":
            units = specimen.units(some.annealed(0.0).free_energy, "free_energy", "beta = 0")
            specimen = replace(specimen, deviations=units.variance.sqrt())
        biases = {
            name: torch.empty_like(getattr(some, name)).uniform_(-_BIAS, _BIAS, generator=random)
            for name in ("visible_bias", "hidden_bias")
            if name in some.contextual
        }
        biases["visible_bias"] = biases["visible_bias"] / specimen.deviations
        return replace(specimen, density=replace(some, **biases))

    def __getitem__(self, index: slice) -> Specimen:
        return replace(self, density=self.density[index], deviations=self.deviations[index])

    def at(self, path: str, beta: float) -> Specimen:
        """The same densities along "annealed" or "tempered"."""
        return replace(self, density=getattr(self.density, path)(beta))

    def base(self, draws: int) -> Tensor:
        """Frames at `beta = 0`, `(draws, K, V)`."""
        frames = self.density.annealed(0.0).sample_base((draws,), self.random)
        return self.shaped("sample_base", frames, (draws, *self.deviations.shape))

    def units(self, energy: Callable[[Tensor], Tensor], method: str, where: str) -> Units:
        """The law `exp(-energy(v))` of independent units, read off frames of a single unit.

        Args:
            energy: of frames `(n, K, V)`, `(n, K)`. Affine if frames are binary, for continuous
                ones quadratic in every unit.
            method: that computes it, for the error.
            where: at what it is computed, for the error.

        Raises:
            ValueError: the units depend on each other, or their mass is not finite.
        """
        zero = torch.zeros_like(self.deviations)[None]
        at_zero = self.shaped(method, energy(zero), zero.shape[:-1])[0]
        up = self._of_single_units(energy, 1.0) - at_zero[:, None]
        if self.frames == "binary":
            slope, curvature = up, torch.zeros_like(up)
            mean = torch.sigmoid(-slope)
            units = Units(mean, mean * (1 - mean), softplus(-slope).sum(-1) - at_zero)
        else:
            down = self._of_single_units(energy, -1.0) - at_zero[:, None]
            slope = (up - down) / (2 * self.deviations)
            curvature = (up + down) / self.deviations**2
            if not bool((curvature > 0).all()):
                raise ValueError(
                    f"{self.name}.{method}: gave a unit the curvature {float(curvature.min()):.3g} "
                    f"at {where}, should have given a positive one: it cannot be normalised"
                )
            logs = slope**2 / curvature + math.log(2 * math.pi) - curvature.log()
            units = Units(-slope / curvature, 1 / curvature, 0.5 * logs.sum(-1) - at_zero)
        v = torch.empty_like(repeated(self.deviations, 3)).normal_(generator=self.random)
        v = self.deviations * v
        v = (v > 0).to(v) if self.frames == "binary" else v
        terms = slope * v + 0.5 * curvature * v**2
        self.agree(
            method,
            f"a frame at {where}",
            energy(v),
            at_zero + terms.sum(-1),
            self.rounding * terms.abs().sum(-1),
            "a sum over units; they are not independent there",
        )
        return units

    def _of_single_units(self, energy: Callable[[Tensor], Tensor], sign: float) -> Tensor:
        """Energies of the frames that are zero but for one unit, `(K, V)`."""
        values = []
        for units in torch.arange(self.deviations.shape[1]).split(_PIECE):
            v = torch.zeros_like(repeated(self.deviations, len(units)))
            v[torch.arange(len(units)), :, units] = sign * self.deviations.T[units]
            values.append(energy(v))
        return torch.cat(values).T

    def coupling(self, exponents: Callable[[float], Tensor], wanted: float = 0.45) -> float:
        """A beta at which `exponents(beta)`, `(n, K)`, have about the wanted deviation over their
        draws; 0 if they have none.

        The mean of its exponential is then known to some percent.
        """
        beta = 1.0
        for _ in range(TRIALS):
            spread = float(exponents(beta).std(0).max())
            if 2 * wanted <= 3 * spread <= 4 * wanted:
                return beta
            if spread < _NO_SPREAD:
                break
            # The spread grows by a power of beta between 1 and 2.
            factor = (wanted / spread) ** (2 / 3) if math.isfinite(spread) else 0.0
            beta *= min(max(factor, 1e-3), 1e3)
        return 0.0

    def agree(
        self,
        method: str,
        what: str,
        gave: Tensor,
        expected: Tensor,
        tolerance: Tensor | float,
        source: str,
    ) -> None:
        """Refuse the class if `gave` is off `expected` by more than `tolerance` and rounding.

        Raises:
            ValueError: it names the class, the method, what it gave and what it should have given.
        """
        gave = self.shaped(method, gave, expected.shape)
        allowed = tolerance + self.rounding * (1 + expected.abs())
        excess = ((gave - expected).abs() / allowed).nan_to_num(nan=math.inf)
        worst = int(excess.argmax())
        if float(excess.flatten()[worst]) > 1:
            found, right, room = (
                float(x.expand_as(excess).flatten()[worst]) for x in (gave, expected, allowed)
            )
            raise ValueError(
                f"{self.name}.{method}: gave {found:.6g} for {what}, should have given "
                f"{right:.6g} (give or take {room:.1g}): {source}"
            )

    def agree_on_frames(self, method: str, what: str, v: Tensor, units: Units, source: str) -> None:
        """Refuse the class if frames `(n, K, V)` are not draws of independent units."""
        self.check_frames(method, v, (len(v), *units.mean.shape))
        self.agree_on_draws(method, what, v, units, source, self.frames == "binary")

    def agree_on_draws(
        self, method: str, what: str, x: Tensor, units: Units, source: str, binary: bool
    ) -> None:
        """Refuse the class if `x` `(n, K, V)` are not draws of independent units."""
        n = len(x)
        scale = torch.ones_like(units.mean) if binary else units.variance.sqrt()
        rare = RARE / n if binary else 0.0
        error = (units.variance / n).sqrt()
        room = ERRORS_ALLOWED * error + (rare + self.rounding) * scale
        self.agree(method, f"the mean of a unit {what}", x.mean(0), units.mean, room, source)
        x, variance = (x - units.mean) / scale, units.variance / scale**2
        if not binary:
            name, error = f"the variance of a unit {what}", math.sqrt(2 / n) * variance
            room = ERRORS_ALLOWED * error
            self.agree(method, f"{name}, over the right one", x.var(0), variance, room, source)
        total = variance.sum(-1)
        cumulants = (variance * (1 - 6 * variance)).sum(-1) if binary else 0.0  # the fourth
        room = ERRORS_ALLOWED * ((2 * total**2 + cumulants).clamp(min=0) / n).sqrt() + rare
        signs = torch.empty_like(x[0, 0]).normal_(generator=self.random).sign()
        for weights in (torch.ones_like(signs), signs):
            squares, name = ((x @ weights) ** 2).mean(0), f"the variance of a sum of units {what}"
            self.agree(method, name, squares, total, room, f"{source}, and they are independent")

    def check_frames(self, method: str, v: Tensor, shape: tuple[int, ...]) -> None:
        """Refuse the class if frames are not of the shape, or the kind that it declares."""
        self.shaped(method, v, shape)
        outside = v[~((v == 0) | (v == 1))] if self.frames == "binary" else v[~v.isfinite()]
        if outside.numel():
            raise ValueError(
                f"{self.name}.{method}: gave a unit the value {float(outside[0]):.6g}, should have "
                f"given {'0 or 1' if self.frames == 'binary' else 'a finite one'}: the class "
                f"declares {self.frames} frames"
            )

    def shaped(self, method: str, value: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The value, of the shape that it must have."""
        if value.shape != torch.Size(shape):
            raise ValueError(
                f"{self.name}.{method}: gave the shape {tuple(value.shape)}, should have given "
                f"{tuple(shape)}"
            )
        return value


def repeated(x: Tensor, n: int) -> Tensor:
    """`n` copies, `(n, *x.shape)`."""
    return x.expand(n, *x.shape).contiguous()


def weaker(beta: float) -> float:
    """`beta`, or less where it is near 1, at which a method that forgets beta would be right."""
    return _BELOW_ONE if _BELOW_ONE < beta < _ABOVE_ONE else beta


def stronger(beta: float) -> float:
    """Twice `beta`, or more where that is near 1."""
    return _ABOVE_ONE if _BELOW_ONE < 2 * beta < _ABOVE_ONE else 2 * beta


def log_mean(exponents: Tensor) -> tuple[Tensor, Tensor]:
    """`log mean exp` over the first dimension, and its standard error."""
    top = exponents.amax(0)
    weights = (exponents - top).exp()
    mean = weights.mean(0)
    return top + mean.log(), weights.std(0) / mean / math.sqrt(len(weights))


def _in_double(density: Any) -> Any:
    """The density in double precision; itself where its methods hold to another."""
    fields = {
        field.name: value.detach().double()
        for field in dataclasses.fields(density)
        if isinstance(value := getattr(density, field.name), Tensor) and value.is_floating_point()
    }
    doubled = replace(density, **fields)
    try:
        doubled.free_energy(doubled.sample_base((1,)))
    except RuntimeError:  # a tensor that is no field is still in another precision
        return density
    return doubled
