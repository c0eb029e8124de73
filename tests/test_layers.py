"""Every density against quadrature and enumeration of its own joint energy."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import numpy as np
import pytest
import reference
import torch
from densities import (
    BINARY,
    CONTINUOUS,
    LAYERS,
    SPIKE_SLAB,
    errors_off,
    generator,
    random_density,
    random_frames,
    random_layer,
)
from torch.nn.functional import softplus

from cgrnn.layers import BernoulliRBM
from cgrnn.layers.energy import softplus_sum
from evaluation import exact

SEEDS = range(5)
PATHS = ("annealed", "tempered")


def grid(half_width: float, step: float) -> torch.Tensor:
    """Points of the trapezoid rule over a plane, `(points, 2)`; exact for Gaussians."""
    line = torch.arange(-half_width, half_width, step, dtype=torch.float64)
    return torch.cartesian_prod(line, line)


SPIKES = exact.all_frames(2)
SLAB_STEP = 0.25
SLABS = grid(50.0, SLAB_STEP)


def joint_masses(kind, density, v):
    """`log ∫ exp(-E(v, h, s)) ds` for every state of two spikes, by sum over the slabs' plane."""
    if kind not in SPIKE_SLAB:
        return torch.stack([-density.energy(v, h) for h in SPIKES])
    masses = [(-density.energy(v, h, SLABS)).logsumexp(0) for h in SPIKES]
    return torch.stack(masses) + 2 * math.log(SLAB_STEP)


def frames_of(kind, visible, seed=0):
    return exact.all_frames(visible) if kind in BINARY else random_frames(kind, 5, visible, seed)


@pytest.mark.parametrize("kind", LAYERS)
def test_energy_is_that_of_the_formula(kind):
    for seed in SEEDS:
        density, random = random_density(kind, 4, 3, seed), np.random.default_rng(seed)
        v = random_frames(kind, 1, 4, seed)[0].numpy()
        h = (random.random(3) < 0.7).astype(float)
        s = random.normal(size=3) if kind in SPIKE_SLAB else None
        latents = [torch.tensor(x) for x in (h, s) if x is not None]
        found = density.energy(torch.tensor(v), *latents)
        assert float(found) == pytest.approx(reference.energy(density, v, h, s), abs=1e-10)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("seed", SEEDS)
def test_free_energy_is_the_marginal_of_the_joint_energy(kind, seed):
    density = random_density(kind, 3, 2, seed)
    for v in frames_of(kind, 3, seed):
        expected = -joint_masses(kind, density, v).logsumexp(0)
        assert float(density.free_energy(v)) == pytest.approx(float(expected), abs=1e-8)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("seed", SEEDS)
def test_spikes_given_the_frame_follow_the_joint_energy(kind, seed):
    density = random_density(kind, 3, 2, seed)
    for v in frames_of(kind, 3, seed)[1:4]:
        expected = joint_masses(kind, density, v).softmax(0) @ SPIKES
        assert torch.allclose(torch.sigmoid(density.hidden_logits(v)), expected)


def evenly(density, v):
    """The density with hidden biases for which every spike is a fair coin, given the frame."""
    return replace(density, hidden_bias=density.hidden_bias - density.hidden_logits(v))


@pytest.mark.parametrize("kind", LAYERS)
def test_spikes_are_drawn_with_their_probability_given_the_frame(kind):
    density = random_density(kind, 3, 4, 2)
    for v in random_frames(kind, 3, 3, 1):
        h = density.sample_latents(v.expand(50_000, -1), generator(2))[0]
        assert errors_off(h, torch.sigmoid(density.hidden_logits(v))) < 5


@pytest.mark.parametrize("kind", SPIKE_SLAB)
def test_slabs_given_frame_and_spikes_have_the_joint_energys_mean_and_variance(kind):
    v = random_frames(kind, 1, 3, 1)[0]
    density = evenly(random_density(kind, 3, 2, 1, scale=0.7), v)
    h, s = density.sample_latents(v.expand(100_000, -1), generator(2))
    for spikes in SPIKES:
        weight = torch.softmax(-density.energy(v, spikes, SLABS), 0)[:, None]
        mean = (weight * SLABS).sum(0)
        variance = (weight * (SLABS - mean) ** 2).sum(0)
        drawn = s[(h == spikes).all(-1)]
        assert errors_off(drawn, mean) < 5
        assert errors_off((drawn - mean) ** 2, variance) < 5
        assert errors_off((drawn - mean).prod(-1), 0.0) < 5


@pytest.mark.parametrize("kind", LAYERS)
def test_frame_given_the_latents_follows_the_joint_energy(kind):
    plane = exact.all_frames(2) if kind in BINARY else grid(25.0, 0.1)
    for seed in SEEDS:
        density = random_density(kind, 2, 3, seed, scale=0.7)
        latents = density.sample_latents(random_frames(kind, 1, 2, seed)[0], generator(seed))
        weight = torch.softmax(-density.energy(plane, *latents), 0)
        mean = weight @ plane
        assert torch.allclose(density.mean_visible(latents), mean, atol=1e-8)
        copies = tuple(latent.expand(20_000, -1) for latent in latents)
        drawn = density.sample_visible(copies, generator(seed))
        assert errors_off(drawn, mean) < 5
        second = (plane * weight[:, None]).T @ plane
        assert errors_off(drawn[:, :, None] * drawn[:, None, :], second) < 5


@pytest.mark.parametrize("kind", LAYERS)
def test_activation_is_the_mean_of_the_feature_that_is_fed_back(kind):
    """`E[h|v]` or `E[h⊙s|v]`, by sum and quadrature of the joint energy."""
    density = random_density(kind, 3, 2, 5, scale=0.7)
    for v in random_frames(kind, 3, 3, 0):
        features = SPIKES
        if kind in SPIKE_SLAB:
            weights = torch.stack([(-density.energy(v, h, SLABS)).softmax(0) for h in SPIKES])
            features = SPIKES * (weights @ SLABS)
        expected = joint_masses(kind, density, v).softmax(0) @ features
        assert torch.allclose(density.activation(v), expected)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", LAYERS)
def test_base_of_either_path_is_normalised_and_sampled_in_closed_form(kind, path):
    base = getattr(random_density(kind, 5, 4, 7), path)(0.0)
    assert float(base.base_log_partition()) == pytest.approx(reference.log_partition(base))
    drawn = base.sample_base((100_000,), generator(0))
    mean, second = reference.moments(base)
    assert errors_off(drawn, mean) < 5
    assert errors_off(drawn[:, :, None] * drawn[:, None, :], second) < 5


def with_couplings_scaled(density, factor):
    """Energies hold W and, where there is one, Φ: the same factor on W and its square on Φ."""
    scaled = {"weight": density.weight * factor}
    if hasattr(density, "damping"):
        scaled["damping"] = density.damping * factor**2
    return replace(density, **scaled)


@pytest.mark.parametrize("kind", LAYERS)
def test_annealed_density_is_the_density_of_scaled_couplings(kind):
    density, v = random_density(kind, 5, 4, 8), random_frames(kind, 20, 5, 0)
    annealed, scaled = density.annealed(0.3), with_couplings_scaled(density, 0.3)
    assert torch.allclose(annealed.free_energy(v), scaled.free_energy(v))
    assert torch.allclose(annealed.activation(v), scaled.activation(v))
    latents = scaled.sample_latents(v, generator(0))
    for mine, theirs in zip(annealed.sample_latents(v, generator(0)), latents, strict=True):
        assert torch.allclose(mine, theirs)
    assert torch.allclose(annealed.energy(v, *latents), scaled.energy(v, *latents))
    assert torch.allclose(annealed.mean_visible(latents), scaled.mean_visible(latents))
    for step in {"gibbs_step", "collapsed_step"} & set(dir(density)):
        mine, theirs = (getattr(d, step)(v, generator(1)) for d in (annealed, scaled))
        assert torch.allclose(mine, theirs)
    assert torch.allclose(annealed.W, scaled.W)
    assert torch.allclose(exact.log_partition(annealed), exact.log_partition(scaled))


@pytest.mark.parametrize("kind", LAYERS)
def test_annealing_twice_multiplies(kind):
    density, v = random_density(kind, 5, 4, 8), random_frames(kind, 20, 5, 0)
    twice, once = density.annealed(0.5).annealed(0.6), density.annealed(0.3)
    assert torch.allclose(twice.free_energy(v), once.free_energy(v))
    assert torch.allclose(density.annealed(1.0).free_energy(v), density.free_energy(v))


@pytest.mark.parametrize("kind", LAYERS)
def test_tempered_density_goes_from_no_preference_to_the_density_in_proportion(kind):
    """What of the logits and of the bias tells frames apart is multiplied by beta, no more."""
    density, v = random_density(kind, 5, 4, 8), random_frames(kind, 20, 5, 0)
    assert torch.allclose(density.tempered(1.0).free_energy(v), density.free_energy(v))
    part = density.hidden_logits(v) - density.hidden_bias
    for beta in (0.0, 0.3, 0.8):
        tempered = density.tempered(beta)
        assert torch.allclose(tempered.hidden_logits(v) - density.hidden_bias, beta * part)
        assert torch.allclose(tempered.visible_bias, beta * density.visible_bias)
        free = tempered.free_energy(v) + beta * v @ density.visible_bias
        if kind in CONTINUOUS:
            assert torch.equal(tempered.precision_diag, density.precision_diag)
            free -= 0.5 * (v**2 @ density.precision_diag)
        hidden = softplus(density.hidden_bias + beta * part).sum(-1)
        assert torch.allclose(free + hidden, (free + hidden)[0])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", LAYERS)
def test_products_with_the_couplings_are_the_same_on_the_whole_path(kind, path):
    density, v = random_density(kind, 5, 4, 9), random_frames(kind, 20, 5, 0)
    products = density.project(v)
    for beta in (0.0, 0.4, 1.0):
        there = getattr(density, path)(beta)
        assert torch.allclose(there.free_energy(v, products), there.free_energy(v))
        assert torch.allclose(there.activation(v, products), there.activation(v))
        with_products = there.gibbs_step(v, generator(0), products)
        assert torch.allclose(with_products, there.gibbs_step(v, generator(0)))


@pytest.mark.parametrize("gradient", [True, False])
def test_softplus_sum_is_exact_for_any_logits(gradient):
    logits = torch.randn(50, 250, generator=generator(0)) * 10 ** torch.linspace(-3, 4, 250)
    logits[0, :7] = torch.tensor([1e30, -1e30, 0.0, 88.0, -88.0, 104.0, -104.0])
    with torch.set_grad_enabled(gradient):
        found = softplus_sum(logits)
    expected = np.logaddexp(0.0, logits.double().numpy()).sum(-1)
    assert np.allclose(found.numpy(), expected, rtol=2e-6)
    small = torch.full((3, 250), -30.0, dtype=torch.float64)
    with torch.set_grad_enabled(gradient):
        assert torch.allclose(softplus_sum(small), 250 * torch.exp(small[:, 0]), atol=1e-13)


def context_and_layer(kind):
    context = torch.randn(5, 7, 2, dtype=torch.float64, generator=generator(0))
    return context, random_layer(kind, 4, 3, 1, context=2)


@pytest.mark.parametrize("kind", LAYERS)
def test_context_moves_biases_and_precisions_and_nothing_else(kind):
    context, layer = context_and_layer(kind)
    expected = {
        "visible_bias": layer.visible_bias + context @ layer.context_to_visible.weight.T,
        "hidden_bias": layer.hidden_bias + context @ layer.context_to_hidden.weight.T,
    }
    if kind in CONTINUOUS:
        shift = torch.log1p((context @ layer.context_to_precision.weight.T).exp())
        expected["precision_diag"] = layer.log_precision.exp() + shift
    density, other = layer(context), layer(context + 1.0)
    assert set(density.contextual) == set(expected)
    for field in fields(density):
        found = getattr(density, field.name)
        if field.name in expected:
            assert torch.allclose(found, expected[field.name])
        else:
            assert torch.equal(torch.as_tensor(found), torch.as_tensor(getattr(other, field.name)))


@pytest.mark.parametrize("kind", LAYERS)
def test_a_batch_is_its_members(kind):
    context, layer = context_and_layer(kind)
    density, one = layer(context), layer(context[2, 3])
    assert density.batch_shape == (5, 7) and one.batch_shape == ()
    v = random_frames(kind, 3 * 5 * 7, 4, 0).view(3, 5, 7, 4)
    free = density.free_energy(v)
    assert free.shape == (3, 5, 7)
    expected = one.free_energy(v[:, 2, 3])
    assert torch.allclose(free[:, 2, 3], expected)
    assert torch.allclose(density[2, 3].free_energy(v[:, 2, 3]), expected)
    assert torch.allclose(density.flatten()[2 * 7 + 3].free_energy(v[:, 2, 3]), expected)
    chosen = density[torch.tensor([0, 2]), 3]
    assert chosen.batch_shape == (2,)
    assert torch.allclose(chosen.free_energy(v[:, [0, 2], 3]), free[:, [0, 2], 3])
    assert density.gibbs_step(v, generator(0)).shape == v.shape
    assert density.sample_base((6, 2), generator(0)).shape == (6, 2, 5, 7, 4)
    assert torch.allclose(density.base_log_partition()[2, 3], one.base_log_partition())


@pytest.mark.parametrize("kind", LAYERS)
def test_drive_with_the_contexts_share_is_the_density_under_the_context(kind):
    context, layer = context_and_layer(kind)
    v = random_frames(kind, 35, 4, 0).view(5, 7, 4)
    drive, density = layer.drive(v, sample=False), layer(context)
    logits = drive.logits + context @ drive.weight.T
    assert drive.uniforms is None
    assert torch.allclose(logits, density.hidden_logits(v))
    assert torch.allclose(torch.sigmoid(logits) * drive.slabs, density.activation(v))


@pytest.mark.parametrize("kind", LAYERS)
def test_a_sampled_drive_feeds_back_latents_of_the_right_mean_and_spread(kind):
    _, layer = context_and_layer(kind)
    v, silence = random_frames(kind, 1, 4, 3), torch.zeros(2, dtype=torch.float64)
    layer.hidden_bias.sub_(layer(silence).hidden_logits(v[0]))  # no spike is rare
    drive = layer.drive(v.expand(100_000, 4), sample=True, generator=generator(0))
    fed_back = (drive.uniforms < torch.sigmoid(drive.logits)) * drive.slabs
    density = layer(silence)
    mean = density.activation(v[0])
    second = mean
    if kind in SPIKE_SLAB:
        size = density.slab_mean(v[0]) ** 2 + 1 / density.alpha
        second = torch.sigmoid(density.hidden_logits(v[0])) * size
    assert errors_off(fed_back, mean) < 5
    assert errors_off(fed_back**2, second) < 5


def test_context_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="context_dim 0"):
        BernoulliRBM(4, 3)(torch.zeros(2))
    with pytest.raises(ValueError, match="context_dim 2"):
        BernoulliRBM(4, 3, context_dim=2)(None)


@pytest.mark.parametrize("kind", LAYERS)
def test_densities_are_replaced_and_never_changed(kind):
    density = random_density(kind, 3, 2, 0)
    before = {
        field.name: torch.as_tensor(getattr(density, field.name)) for field in fields(density)
    }
    copies = {name: value.clone() for name, value in before.items()}
    for other in (density.annealed(0.5), density.tempered(0.5), density[None], density.flatten()):
        other.gibbs_step(other.sample_base((2,), generator(0)), generator(0))
    assert all(torch.equal(before[name], copies[name]) for name in copies)
    assert density.beta == 1.0
