"""The spike-and-slab RBM over continuous frames: the density exists whatever its parameters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import reference
import torch
from densities import (
    CONTINUOUS,
    GAUSSIAN_SPIKE_SLAB,
    SpectralSpikeSlabRBM,
    errors_off,
    generator,
    random_density,
    random_layer,
    without_gradient,
)

from cgrnn.layers import GaussianSpikeSlabRBM
from cgrnn.layers.gaussian_spike_slab import SPECTRAL_NORM
from evaluation import ais, exact


def least_eigenvalue(precision):
    return float(torch.linalg.eigvalsh(precision).min())


def mixed_scales(random, shape):
    return random.choice((-1.0, 1.0), shape) * 10 ** random.uniform(-3, 3, shape)


def equal_signs(random, shape):
    return 1e3 * random.uniform(0.5, 1.0, shape)


def one_column(random, shape):
    W = random.normal(size=shape)
    W[:, 0] *= 1e3
    return W


def one_row(random, shape):
    W = random.normal(size=shape)
    W[0] *= 1e3
    return W


def equal_columns(random, shape):
    return np.broadcast_to(1e3 * random.normal(size=(shape[0], 1)), shape)


SHAPES_OF_COUPLINGS = (mixed_scales, equal_signs, one_column, one_row, equal_columns)


def adversarial_layer(kind, seed, dtype):
    """Couplings up to 10³ that pull together, α and Λ over orders of magnitude, no slack in Φ."""
    random = np.random.default_rng(seed)
    layer = kind(*random.integers(1, 13, size=2))
    couplings = SHAPES_OF_COUPLINGS[seed % len(SHAPES_OF_COUPLINGS)]
    with torch.no_grad():
        layer.W.copy_(torch.tensor(couplings(random, tuple(layer.W.shape))))
        layer.log_alpha.copy_(torch.tensor(random.normal(size=layer.hidden_dim, scale=1.5)))
        layer.log_precision.copy_(torch.tensor(random.normal(size=layer.visible_dim, scale=1.5)))
        layer.mu.copy_(torch.tensor(random.normal(size=layer.hidden_dim, scale=3.0)))
        if kind is GaussianSpikeSlabRBM:
            layer.raw_slack.fill_(random.choice((-200.0, -5.0, 0.0)))
    return without_gradient(layer.to(dtype))


def adversarial_spikes(hidden, seed, dtype):
    """All on, one on, and three random states."""
    random = np.random.default_rng(seed)
    drawn = random.random((3, hidden)) < random.random((3, 1))
    states = np.concatenate([np.ones((1, hidden)), np.eye(1, hidden), drawn])
    return torch.tensor(states, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", GAUSSIAN_SPIKE_SLAB)
def test_precision_is_positive_definite_for_a_thousand_adversarial_settings(kind, dtype):
    for seed in range(1000):
        layer = adversarial_layer(kind, seed, dtype)
        spikes = adversarial_spikes(layer.hidden_dim, seed, dtype)
        precision = layer(None).precision(spikes)
        assert precision.dtype == torch.float64
        assert least_eigenvalue(precision) > 0, seed


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("path", ["annealed", "tempered"])
@pytest.mark.parametrize("kind", GAUSSIAN_SPIKE_SLAB)
def test_precision_is_positive_definite_on_the_way_there(kind, path, dtype):
    for seed in range(300):
        density = adversarial_layer(kind, seed, dtype)(None)
        beta = float(np.random.default_rng(seed).random())
        spikes = adversarial_spikes(density.hidden_dim, seed, dtype)
        assert least_eigenvalue(getattr(density, path)(beta).precision(spikes)) > 0, seed


@pytest.mark.parametrize("visible", [1, 2, 3])
@pytest.mark.parametrize("path", ["annealed", "tempered"])
def test_rounding_in_float32_does_not_tip_the_balance_of_few_visible_units(visible, path):
    """Without slack `Φ_i` only just outweighs `w_i w_iᵀ/α_i`; each spike is a setting."""
    random, layer = generator(0), GaussianSpikeSlabRBM(visible, 1000)
    with torch.no_grad():
        layer.W.normal_(std=1e3, generator=random)
        layer.log_alpha.normal_(std=1.5, generator=random)
        layer.raw_slack.fill_(-200.0)
        for beta in torch.rand(10, generator=random).tolist():
            density = getattr(layer(None), path)(beta)
            assert least_eigenvalue(density.precision(torch.eye(1000))) > 0


@pytest.mark.parametrize("kind", GAUSSIAN_SPIKE_SLAB)
def test_precision_under_a_context_is_positive_definite(kind):
    for seed in range(200):
        layer = random_layer(kind, 5, 4, seed, scale=10.0 ** (seed % 4), context=3)
        context = 100 * torch.randn(6, 3, dtype=torch.float64, generator=generator(seed))
        density = layer(context)
        spikes = exact.all_frames(4)[:, None].expand(-1, 6, -1)
        assert density.precision(spikes).shape == (16, 6, 5, 5)
        assert least_eigenvalue(density.precision(spikes)) > 0


def test_every_spike_narrows_the_density_made_by_spike():
    for seed in range(200):
        layer = adversarial_layer(GaussianSpikeSlabRBM, seed, torch.float64)
        density, each = layer(None), torch.eye(layer.hidden_dim, dtype=torch.float64)
        added = density.precision(each) - torch.diag(density.precision_diag)
        rounding = 1e-13 * (density.precision_diag.max() + density.phi.amax(-1))
        assert (torch.linalg.eigvalsh(added).min(-1).values > -rounding).all()


def test_every_spike_widens_the_spectral_density_within_its_bound():
    for seed in range(200):
        layer = adversarial_layer(SpectralSpikeSlabRBM, seed, torch.float64)
        density = layer(None)
        root = density.precision_diag.rsqrt()
        spikes = adversarial_spikes(layer.hidden_dim, seed, torch.float64)
        eigenvalues = torch.linalg.eigvalsh(root[:, None] * density.precision(spikes) * root)
        assert eigenvalues.min() > 1 - SPECTRAL_NORM**2 - 1e-9
        assert eigenvalues.max() < 1 + 1e-9


def test_couplings_within_the_spectral_norm_stay_as_they_are():
    layer = random_layer(SpectralSpikeSlabRBM, 5, 4, 0, scale=0.1)
    assert torch.linalg.matrix_norm(layer.W, 2) < SPECTRAL_NORM
    scale = layer.log_precision.exp().sqrt()[:, None] * layer.log_alpha.exp().sqrt()
    assert torch.allclose(layer(None).W, layer.W * scale)
    layer.W.mul_(100.0)
    norm = torch.linalg.matrix_norm(layer(None).W / scale, 2)
    assert float(norm) == pytest.approx(SPECTRAL_NORM)


def test_the_published_audio_setting_is_no_density():
    """Φ = 0 with free couplings, as in the paper: some state of the spikes has infinite mass."""
    improper = 0
    for seed in range(20):
        layer = random_layer(GaussianSpikeSlabRBM, 6, 5, seed, scale=0.5)
        layer.log_precision.zero_()
        density = replace(layer(None), damping=torch.zeros(5, 6, dtype=torch.float64))
        improper += least_eigenvalue(density.precision(exact.all_frames(5))) < 0
        assert least_eigenvalue(layer(None).precision(exact.all_frames(5))) > 0
    assert improper > 15


@pytest.mark.parametrize("kind", GAUSSIAN_SPIKE_SLAB)
def test_precision_is_that_of_the_frame_in_the_joint_gaussian_of_frame_and_slabs(kind):
    for seed in range(20):
        density = random_density(kind, 4, 3, seed)
        found = density.precision(torch.tensor(reference.states(3)))
        _, _, covariance = reference.gaussians(density)
        assert np.allclose(found.numpy() @ covariance, np.eye(4), atol=1e-9)


@pytest.mark.parametrize("kind", CONTINUOUS)
def test_frames_given_spikes_alone_are_those_of_the_joint_gaussian(kind):
    density = random_density(kind, 3, 3, 2)
    _, means, covariances = reference.gaussians(density)
    for h, mean, covariance in zip(reference.states(3), means, covariances, strict=True):
        spikes = torch.tensor(h).expand(20_000, 3)
        drawn = density.sample_collapsed(spikes, generator(0)) - torch.tensor(mean)
        assert errors_off(drawn, np.zeros(3)) < 5
        assert errors_off(drawn[:, :, None] * drawn[:, None, :], covariance) < 5


@pytest.mark.parametrize("kind", GAUSSIAN_SPIKE_SLAB)
def test_collapsed_sweeps_keep_batch_and_dtype(kind):
    layer = random_layer(kind, 4, 3, 0, context=2).float()
    density = layer(torch.randn(5, 7, 2, generator=generator(0)))
    v = density.collapsed_step(density.sample_base((6,), generator(1)), generator(2))
    assert v.shape == (6, 5, 7, 4) and v.dtype == torch.float32


@pytest.mark.parametrize("collapsed", [False, True])
@pytest.mark.parametrize("schedule", ["linear", "adaptive"])
@pytest.mark.parametrize("scale", [0.05, 1.0, 1e3])
@pytest.mark.parametrize("kind", GAUSSIAN_SPIKE_SLAB)
def test_annealing_of_full_size_stays_finite_in_float32(kind, scale, schedule, collapsed):
    density = random_layer(kind, 150, 250, 0, scale).float()(None)
    estimate = ais.log_partition(
        density, chains=4, levels=5, generator=generator(0), schedule=schedule, collapsed=collapsed
    )
    assert estimate.log_weights.shape == (4,)
    assert estimate.log_weights.isfinite().all()
    assert estimate.log_z.isfinite()
    assert estimate.stderr.isfinite() or estimate.missed  # so few chains and levels


@pytest.mark.parametrize("kind", GAUSSIAN_SPIKE_SLAB)
def test_gradients_of_adversarial_settings_are_finite_in_float32(kind):
    for seed in range(100):
        layer = adversarial_layer(kind, seed, torch.float32).requires_grad_(True)
        v = torch.randn(20, layer.visible_dim, generator=generator(seed))
        layer(None).free_energy(v).sum().backward()
        assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())


def test_unknown_construction_is_refused():
    with pytest.raises(ValueError, match="by spike, spectral, got 'free'"):
        GaussianSpikeSlabRBM(4, 3, construction="free")
