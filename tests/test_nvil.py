"""The NVIL bound against quadrature, enumeration, repetition and its own limits."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from densities import BINARY, LAYERS, generator, random_density, without_gradient
from torch.nn.functional import softplus

from cgrnn.layers import (
    BernoulliRBM,
    BinarySpikeSlabRBM,
    BinarySpikeSlabRBMDensity,
    GaussianSpikeSlabRBM,
)
from evaluation import exact, nvil
from evaluation.result import LogPartition

ERRORS = 5  # standard errors that a right estimate is allowed


@dataclass
class Line:
    """A proposal along one line, small enough for quadrature: `a` is a number.

    `q(a) = N(0, 1)`, `q(v|a)` Bernoulli with logits `offset + slope a`, and
    `r(a|v) = N(lookᵀv, spread²)`.
    """

    offset: torch.Tensor
    slope: torch.Tensor
    look: torch.Tensor
    spread: float = 0.8

    def sample(self, samples, rows, generator=None):
        a = torch.randn(samples, 1, dtype=torch.float64, generator=generator)
        uniform = torch.rand(samples, 1, len(self.offset), dtype=a.dtype, generator=generator)
        v = (uniform < torch.sigmoid(self.logits(a))).double()
        return v, self.log_joint(v, a) - self.log_r(a, v)

    def logits(self, a):
        return self.offset + a[..., None] * self.slope

    def log_joint(self, v, a):
        bernoulli = (v * self.logits(a) - softplus(self.logits(a))).sum(-1)
        return bernoulli - 0.5 * a**2 - 0.5 * math.log(2 * math.pi)

    def log_r(self, a, v):
        deviation = (a - v @ self.look) / self.spread
        return -0.5 * deviation**2 - math.log(self.spread * math.sqrt(2 * math.pi))


def line(seed):
    offset, slope, look = 0.5 * torch.randn(3, 4, dtype=torch.float64, generator=generator(seed))
    return Line(offset, slope, look)


def right_hand_side(density, proposal):
    """`½ log Σ_v ∫ q(v,a) w(v,a)² da` and `log Σ_v ∫ q(v,a) w(v,a) da`, frames enumerated."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)  # weight function exp(-a²/2)
    a, weights = torch.tensor(nodes), torch.tensor(weights)
    frames = exact.all_frames(4)[:, None].expand(-1, len(a), -1)
    log_q = proposal.log_joint(frames, a)
    log_w = -density.free_energy(frames) + proposal.log_r(a, frames) - log_q
    measure = log_q + 0.5 * a**2 + weights.log()
    return (
        0.5 * (measure + 2 * log_w).flatten().logsumexp(0),
        (measure + log_w).flatten().logsumexp(0),
    )


def mean_error(log_values, log_truth):
    """Mean of the values over the truth less one, in standard errors."""
    ratio = (log_values - log_truth).exp()
    return float((ratio.mean() - 1) / (ratio.std() / math.sqrt(len(ratio))))


@pytest.mark.parametrize("kind", BINARY)
def test_against_quadrature(kind):
    for seed in range(3):
        density, proposal = random_density(kind, 4, 3, seed, scale=0.5), line(seed)
        truth, log_z = right_hand_side(density, proposal)
        assert log_z == pytest.approx(float(exact.log_partition(density)), abs=1e-6)
        bound = nvil.log_partition(density, proposal, 200_000, generator(seed))
        assert bound.kind == "upper bound"
        assert truth > log_z
        assert abs(bound.log_z - truth) < ERRORS * bound.stderr
        assert abs(mean_error(2 * bound.log_weights, 2 * truth)) < ERRORS


def test_what_is_printed_in_the_paper_is_no_bound():
    """Without the square it is half of `log Z`; without `r` it is another number."""
    density, proposal = random_density(BinarySpikeSlabRBM, 4, 3, 0, scale=0.5), line(0)
    truth, log_z = right_hand_side(density, proposal)
    weights = nvil.log_partition(density, proposal, 200_000, generator(0)).log_weights
    unsquared = 0.5 * LogPartition.from_log_weights(weights).log_z
    assert unsquared < log_z - 1
    assert abs(mean_error(weights, log_z)) < ERRORS

    class WithoutR(Line):
        def log_r(self, a, v):
            return torch.zeros_like(a)

    blind = WithoutR(proposal.offset, proposal.slope, proposal.look)
    other = nvil.log_partition(density, blind, 200_000, generator(0))
    assert other.log_z > truth + 1


@pytest.mark.parametrize("kind", LAYERS)
def test_independent_units_are_exact(kind):
    density = random_density(kind, 8, 5, 0).annealed(0.0)
    proposal = nvil.train(density, 0, generator(0))
    bound = nvil.log_partition(density, proposal, 50, generator(1))
    assert torch.allclose(bound.log_weights, exact.log_partition(density), atol=1e-6)
    assert float(bound.stderr) == pytest.approx(0.0, abs=1e-6)
    assert float(bound.ess) == pytest.approx(50.0)


@pytest.mark.parametrize("kind", LAYERS)
def test_draws_and_log_ratios_of_the_variational_proposal_agree(kind):
    """`E_q[w] = Z` for any networks: only if `q` is what is drawn from and `r` is normalised."""
    layer = without_gradient(kind(5, 4, context_dim=2).double())
    torch.nn.init.normal_(layer.W, std=0.3, generator=generator(0))
    density = layer(torch.randn(3, 2, dtype=torch.float64, generator=generator(1)))
    proposal = nvil.train(density, 0, generator(2))
    for parameter in proposal.networks.parameters():
        noise = torch.empty_like(parameter).normal_(
            std=0.02, generator=generator(parameter.numel())
        )
        parameter.requires_grad_(False).add_(noise)
    weights = nvil.log_partition(density, proposal, 100_000, generator(3)).log_weights
    truth = exact.log_partition(density)
    for log_weights, log_z in zip(weights.T, truth, strict=True):
        assert log_weights.std() > 0.2  # far from a proposal that could not be wrong
        assert abs(mean_error(log_weights, log_z)) < ERRORS


def trained_bound(density, seed, samples=10_000, steps=500):
    proposal = nvil.train(density, steps, generator(seed))
    return nvil.log_partition(density, proposal, samples, generator(seed + 1))


@pytest.mark.parametrize("kind", LAYERS)
def test_trained_bound_is_above_and_near(kind):
    for seed in range(2):
        density = random_density(kind, 9, 6, seed, scale=0.5)
        bound = trained_bound(density, seed)
        gap = float(bound.log_z - exact.log_partition(density))
        assert -4 * bound.stderr < gap < 0.5


@pytest.mark.parametrize("kind", LAYERS)
def test_strong_couplings_are_bounded(kind):
    density = random_density(kind, 10, 6, 5, scale=1.0)
    bound = trained_bound(density, 5)
    assert bound.log_z - exact.log_partition(density) > -4 * bound.stderr


def test_few_squared_weights_are_flagged():
    """An untrained proposal meets the mass too seldom: its weights are low, and it says so."""
    density = random_density(GaussianSpikeSlabRBM, 10, 6, 1, scale=2.0)
    truth = exact.log_partition(density)
    untrained = trained_bound(density, 1, steps=0)
    squares = LogPartition.from_log_weights(2 * untrained.log_weights)
    assert squares.log_z / 2 < truth - 5
    assert squares.stderr / 2 < 0.6  # which is why the error alone would mislead
    assert untrained.collapsed and not untrained.stderr.isfinite()
    assert truth - 1 < untrained.log_z <= truth + 1e-6  # what the states found prove
    trained = trained_bound(density, 1)
    assert trained.log_z - truth > -4 * trained.stderr
    assert trained.ess > 100 * untrained.ess


def test_the_error_is_that_of_repetitions():
    density = random_density(BinarySpikeSlabRBM, 9, 6, 1, scale=0.5)
    proposal = nvil.train(density, 500, generator(1))
    bounds = [nvil.log_partition(density, proposal, 1000, generator(n)) for n in range(200)]
    figures = torch.stack([bound.log_z for bound in bounds])
    error = torch.stack([bound.stderr for bound in bounds]).mean()
    assert 0.7 < figures.std() / error < 1.4
    truth = exact.log_partition(density)
    assert ((figures - truth) / error).min() > -4


def test_the_estimate_of_the_bound_is_low_on_average():
    density, proposal = random_density(BinarySpikeSlabRBM, 4, 3, 0, scale=0.5), line(0)
    truth, _ = right_hand_side(density, proposal)
    weights = nvil.log_partition(density, proposal, 100_000, generator(0)).log_weights
    few = 0.5 * LogPartition.from_log_weights(2 * weights.view(10, -1)).log_z
    assert few.mean() + ERRORS * few.std() / math.sqrt(len(few)) < truth


def test_modes_that_the_base_hides():
    """All of the mass is in full frames, where the biases alone would never lead."""
    one = torch.ones(1, dtype=torch.float64)
    density = BinarySpikeSlabRBMDensity(
        one.expand(12, 1), -9 * one.expand(12), 0 * one, 1.0, alpha=0.5 * one, mu=one
    )
    truth = exact.log_partition(density)
    assert truth > density.base_log_partition() + 10
    bound = trained_bound(density, 0)
    assert -4 * bound.stderr < bound.log_z - truth < 0.5


def test_modes_that_annealing_leaves():
    """Without active spikes a continuous frame is wide: annealing leads into the narrow modes."""
    density = random_density(GaussianSpikeSlabRBM, 30, 40, 0, scale=0.3)
    no_spike = density.hidden_log_mass(torch.zeros(40, dtype=torch.float64))
    bound = trained_bound(density, 0, steps=300)
    assert bound.log_z > no_spike - 4 * bound.stderr
    assert not bound.collapsed


def contextual(kind, shape, dtype=torch.float64):
    layer = kind(6, 4, context_dim=3).to(dtype)
    for number, weight in enumerate(layer.parameters()):
        if weight.dim() == 2:
            torch.nn.init.normal_(weight, std=0.5, generator=generator(number))
    return layer, torch.randn(*shape, 3, dtype=dtype, generator=generator(9))


@pytest.mark.parametrize("kind", [BinarySpikeSlabRBM, GaussianSpikeSlabRBM])
def test_one_proposal_serves_a_batch(kind):
    layer, context = contextual(kind, (4, 10))
    density = without_gradient(layer)(context)
    bound = trained_bound(density, 0, samples=5000)
    assert bound.log_weights.shape == (5000, 4, 10)
    gap = bound.log_z - exact.log_partition(density)
    assert (gap / bound.stderr).min() > -4.5
    assert gap.max() < 0.5


def test_gradients_and_the_global_generator_are_left_alone():
    layer, context = contextual(GaussianSpikeSlabRBM, (2, 20), torch.float32)
    state = torch.random.get_rng_state()
    bounds = []
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            bounds.append(trained_bound(layer(context), 0, samples=100, steps=5))
    assert torch.equal(bounds[0].log_weights, bounds[1].log_weights)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert bounds[0].log_z.dtype == torch.float64
    assert not bounds[0].log_z.requires_grad
    assert all(parameter.grad is None for parameter in layer.parameters())


def test_memory_is_bounded_and_blocks_are_those_of_a_block():
    """Whatever the batch, few frames at a time; each block draws as it would alone."""
    layer, context = contextual(BernoulliRBM, (30,))
    density = without_gradient(layer)(context)
    proposal = nvil.train(density, 3, generator(0))
    asked = []

    class Recorder:
        def sample(self, samples, rows, generator=None):
            asked.append((samples, rows))
            return proposal.sample(samples, rows, generator)

    done = []
    for samples in (1000, 20_000):
        bound = nvil.log_partition(density, Recorder(), samples, generator(1), done.append)
        assert bound.log_z.isfinite().all()
    assert max(samples * len(range(*rows.indices(30))) for samples, rows in asked) <= 8192
    assert sum(done) == 30 * 21_000
    first = nvil.log_partition(density[:8], proposal, 1000, generator(1))
    whole = nvil.log_partition(density, proposal, 1000, generator(1))
    assert torch.allclose(first.log_z, whole.log_z[:8])


def test_nonsense_is_refused():
    density = random_density(BernoulliRBM, 4, 2, 0)
    with pytest.raises(ValueError, match="samples must be at least 1, got 0"):
        nvil.log_partition(density, line(0), samples=0)
    with pytest.raises(ValueError, match="steps must be at least 0, got -1"):
        nvil.train(density, -1)
    other = nvil.train(random_density(BernoulliRBM, 5, 2, 0), 0)
    with pytest.raises(ValueError, match="it is for another batch"):
        nvil.log_partition(density, other, 10)
