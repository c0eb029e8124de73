"""The cheap half of the contract of `EnergyDensity`, checked before a figure is made.

An estimate of `log Z` is right where `base_log_partition` and `sample_base` belong to the free
energy at `beta = 0`, and free energy, latents and frames to one energy. An estimator that takes
this for granted makes of a density that breaks it a wrong figure with a small error. So each class
is checked once a process, on a few densities with moderate parameters (`evaluation.specimen`).

What it cannot see:

* latents that are right one by one and drawn together wrongly: it could as well be that the states
  of some forbid those of others;
* where a class does not declare its frames, a constant of `base_log_partition`;
* a `gibbs_step` of its own whose mean is about right;
* continuous frames of many units given hidden ones (`masses.reads_all`), but at `beta = 0`;
* what goes wrong only where parameters are extreme, or only in some densities of a batch;
* a term of `energy` that no other method knows, which makes no `log Z` wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakSet

import torch

from evaluation import identities, latent_laws, masses
from evaluation.specimen import Specimen, weaker

KINDS = ("binary", "continuous")
_FRAMES = 5

_kept: WeakSet[type] = WeakSet()
_kept_masses: WeakSet[type] = WeakSet()
_kept_large_masses: WeakSet[type] = WeakSet()


def frames(density: Any, user: str) -> str:
    """The kind of frames a density declares, "binary" or "continuous".

    Args:
        density: any energy density.
        user: what needs to know, for the error.

    Raises:
        ValueError: it declares none.
    """
    declared: str | None = density.frames
    if declared is None:
        raise ValueError(
            f"{type(density).__name__}.frames: is None, and {user} must know over which frames to "
            'sum; declare "binary" (every frame of {0, 1}^V) or "continuous" (R^V), or else '
            "estimate with evaluation.ais.log_partition"
        )
    return declared


def check(density: Any) -> None:
    """Refuse a density whose methods do not belong together. Checked once for a class.

    Nothing is drawn from the global generators, and no gradient is recorded.

    Args:
        density: energy density with batch shape `(*B,)`.

    Raises:
        ValueError: it names the class, the method, what it gave and what it should have given.

    Example:
        >>> from cgrnn.layers.bernoulli_rbm import BernoulliRBMDensity
        >>> class Mistaken(BernoulliRBMDensity):
        ...     def base_log_partition(self):
        ...         return super().base_log_partition() + 1.0
        >>> try:
        ...     check(Mistaken(torch.ones(2, 1), torch.zeros(2), torch.zeros(1), 1.0))
        ... except ValueError as error:
        ...     print(str(error).split(":")[0])
        Mistaken.base_log_partition
    """
    if density.frames not in (None, *KINDS):
        raise ValueError(
            f"{type(density).__name__}.frames: is {density.frames!r}, should be None or one of "
            f"{', '.join(KINDS)}"
        )
    _once(density, _kept, _whole)
    if density.frames is not None and hasattr(density, "hidden_log_mass"):
        _check_masses(density)


def check_enumerable(density: Any) -> None:
    """Refuse a density over continuous frames that cannot be integrated in closed form.

    Raises:
        ValueError: it lacks a method.
    """
    for method in ("hidden_log_mass", "sample_collapsed"):
        if density.frames == "continuous" and not hasattr(density, method):
            raise ValueError(
                f"{type(density).__name__}.{method}: is missing, and continuous frames can only be "
                "integrated by it; estimate with evaluation.ais.log_partition instead"
            )


def _check_masses(density: Any) -> None:
    large = not masses.reads_all(density)
    _once(density, _kept_large_masses if large else _kept_masses, masses.agree)


def _once(density: Any, kept: WeakSet[type], function: Callable[[Specimen], bool]) -> None:
    """Check a class that was not yet found to keep the contract."""
    kind = type(density)
    if kind in kept or not density.batch_shape.numel():
        return
    device = density.weight.device
    used = [device] if device.type == "cuda" else []
    # A method may draw from the global generators, though it is given one.
    with torch.no_grad(), torch.random.fork_rng(used):
        if function(Specimen.of(density)):
            kept.add(kind)


def _whole(specimen: Specimen) -> bool:
    """Whether there are couplings by which all could be checked."""
    identities.paths(specimen)
    if specimen.frames is None:
        identities.base_of_undeclared(specimen)
    else:
        identities.base(specimen, "annealed")
        identities.base(specimen, "tempered")
    frames = specimen.base(_FRAMES)
    beta = weaker(latent_laws.weak_coupling(specimen, frames))
    latent_laws.agree(specimen, beta, frames)
    if specimen.frames is None:
        identities.frames_of_undeclared(specimen)
        strong = beta
    else:
        strong = identities.frames_given_latents(specimen[:1], beta, frames[:, :1])
    identities.gibbs_step(specimen, (beta, (beta * strong) ** 0.5, strong))
    return beta > 0 and bool(specimen.density.weight.any())
