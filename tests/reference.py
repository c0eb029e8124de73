"""The densities once more, in numpy and by their joint energies: nothing is shared with them.

Frames are binary, or Gaussian given the spikes. Wherever a function speaks of spikes, the hidden
units of an RBM without slabs are meant too.
"""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from scipy.special import logsumexp
from scipy.stats import chi2

Array = np.ndarray


def states(units: int) -> Array:
    """Every state of so many binary units, `(2^units, units)`, the last unit the fastest."""
    return np.array(list(itertools.product((0.0, 1.0), repeat=units)))


def number(spikes: Any) -> Array:
    """The place of every state among `states`."""
    spikes = np.asarray(spikes)
    return (spikes @ (2 ** np.arange(spikes.shape[-1])[::-1])).astype(int)


def fields(density: Any) -> SimpleNamespace:
    """The parameters in force under the names of the formulas; None where a kind has none."""
    names = {"b": "visible_bias", "c": "hidden_bias", "W": "W"}
    names |= {"alpha": "alpha", "mu": "mu", "Phi": "phi", "Lambda": "precision_diag"}
    found = {short: getattr(density, name, None) for short, name in names.items()}
    return SimpleNamespace(
        **{short: None if x is None else x.detach().double().numpy() for short, x in found.items()}
    )


def energy(density: Any, v: Array, h: Array, s: Array | None = None) -> float:
    """`E(v, h, s)` of one state, a sum over units as the paper prints it, with its slips mended."""
    p, total = fields(density), 0.0
    for j in range(len(v)):
        total -= p.b[j] * v[j]
        if p.Lambda is not None:
            total += 0.5 * p.Lambda[j] * v[j] ** 2
    for i in range(len(h)):
        total -= p.c[i] * h[i]
        feature = h[i] if s is None else h[i] * s[i]
        total -= sum(v[j] * p.W[j, i] for j in range(len(v))) * feature
        if s is not None:
            total += 0.5 * p.alpha[i] * s[i] ** 2 + 0.5 * p.alpha[i] * p.mu[i] ** 2 * h[i]
            total -= p.alpha[i] * p.mu[i] * h[i] * s[i]
        if p.Phi is not None:
            total += 0.5 * h[i] * sum(p.Phi[i, j] * v[j] ** 2 for j in range(len(v)))
    return total


def joint_log_masses(density: Any) -> Array:
    """`log ∫ exp(-E(v, h, s)) ds` for every binary frame and state of the spikes."""
    p = fields(density)
    v, h = states(len(p.b)), states(len(p.c))
    masses = (v @ p.b)[:, None] + h @ p.c
    if p.alpha is None:
        return masses + v @ p.W @ h.T
    # The slabs' exponent is -½ sᵀdiag(α)s + sᵀd with d as here: complete the square.
    d = (v @ p.W)[:, None] * h + p.alpha * p.mu * h
    square = 0.5 * (d**2 / p.alpha).sum(-1) + 0.5 * np.log(2 * np.pi / p.alpha).sum()
    return masses + square - 0.5 * h @ (p.alpha * p.mu**2)


def gaussians(density: Any) -> tuple[Array, Array, Array]:
    """For every state of the spikes the log mass, the mean and the covariance of the frame.

    With slabs, frame and slabs are one Gaussian of dimension `V + H`, whose precision is written
    down in blocks and inverted as a whole.
    """
    p = fields(density)
    h = states(len(p.c))
    constant = h @ p.c
    if p.alpha is None:
        precision = np.broadcast_to(np.diag(p.Lambda), (len(h), len(p.b), len(p.b)))
        linear = p.b + h @ p.W.T
    else:
        constant = constant - 0.5 * h @ (p.alpha * p.mu**2)
        precision = np.array([_joint_precision(p, spikes) for spikes in h])
        linear = np.concatenate([np.broadcast_to(p.b, (len(h), len(p.b))), h * p.alpha * p.mu], 1)
    covariance = np.linalg.inv(precision)
    mean = (covariance @ linear[..., None])[..., 0]
    sign, log_determinant = np.linalg.slogdet(precision / (2 * np.pi))
    assert (sign > 0).all()
    log_mass = constant + 0.5 * (linear * mean).sum(-1) - 0.5 * log_determinant
    V = len(p.b)
    return log_mass, mean[:, :V], covariance[:, :V, :V]


def _joint_precision(p: SimpleNamespace, h: Array) -> Array:
    coupling = -p.W * h
    frame = np.diag(p.Lambda + h @ p.Phi)
    return np.block([[frame, coupling], [coupling.T, np.diag(p.alpha)]])


def is_binary(density: Any) -> bool:
    return fields(density).Lambda is None


def spike_log_masses(density: Any) -> Array:
    """`log ∫∫ exp(-E(v, h, s)) ds dv` for every state of the spikes."""
    if is_binary(density):
        return logsumexp(joint_log_masses(density), axis=0)
    return gaussians(density)[0]


def log_partition(density: Any) -> float:
    return float(logsumexp(spike_log_masses(density)))


def spike_probabilities(density: Any) -> Array:
    masses = spike_log_masses(density)
    return np.exp(masses - logsumexp(masses))


def moments(density: Any) -> tuple[Array, Array]:
    """`E[v]` and `E[v vᵀ]`."""
    if is_binary(density):
        v, masses = states(density.visible_dim), logsumexp(joint_log_masses(density), axis=1)
        p = np.exp(masses - logsumexp(masses))
        return p @ v, (v * p[:, None]).T @ v
    _, mean, covariance = gaussians(density)
    p = spike_probabilities(density)
    second = covariance + mean[:, :, None] * mean[:, None, :]
    return p @ mean, np.tensordot(p, second, 1)


def sample(density: Any, count: int, seed: int) -> torch.Tensor:
    """Independent frames, `(count, V)` float64."""
    random = np.random.default_rng(seed)
    if is_binary(density):
        masses = logsumexp(joint_log_masses(density), axis=1)
        p = np.exp(masses - logsumexp(masses))
        return torch.tensor(states(density.visible_dim)[random.choice(len(p), count, p=p)])
    _, mean, covariance = gaussians(density)
    chosen = random.choice(len(mean), count, p=spike_probabilities(density))
    noise = random.standard_normal((count, density.visible_dim, 1))
    return torch.tensor(mean[chosen] + (np.linalg.cholesky(covariance)[chosen] @ noise)[..., 0])


def surprise_of_spikes(density: Any, spikes: Any) -> float:
    """`-log10` of the probability that so many independent draws of the spikes, `(n, H)`, differ
    as much from the density by Pearson's statistic."""
    expected = len(spikes) * spike_probabilities(density)
    seen = np.bincount(number(spikes), minlength=len(expected))
    rare = expected < 10  # together they make one class
    expected = np.append(expected[~rare], max(expected[rare].sum(), 1e-9))
    seen = np.append(seen[~rare], seen[rare].sum())
    statistic = ((seen - expected) ** 2 / np.maximum(expected, 1.0)).sum()
    return float(-chi2.logsf(statistic, max(1, len(expected) - 1)) / np.log(10))
