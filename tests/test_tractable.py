"""The contract that every tractable density keeps, and each against `torch.distributions`."""

from __future__ import annotations

import math

import pytest
import torch
from densities import generator, without_gradient
from torch import distributions
from torch.func import functional_call

from cgrnn.layers import (
    NADE,
    RNADE,
    BernoulliRBM,
    GaussianMixture,
    IndependentBernoulli,
    IndependentGaussian,
)
from cgrnn.layers.tractable import MIN_DEVIATION
from evaluation import exact

MAKERS = {
    "bernoulli": lambda visible, context: IndependentBernoulli(visible, context),
    "gaussian": lambda visible, context: IndependentGaussian(visible, context),
    "mixture": lambda visible, context: GaussianMixture(visible, 3, context),
    "nade": lambda visible, context: NADE(visible, 4, context),
    "rnade": lambda visible, context: RNADE(visible, 4, 3, context),
}
KINDS = tuple(MAKERS)
CONTINUOUS = ("gaussian", "mixture", "rnade")


def random_layer(kind, visible, context=0, seed=0, scale=0.6):
    """A layer in float64 with all parameters N(0, scale²)."""
    layer, random = MAKERS[kind](visible, context).double(), generator(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(std=scale, generator=random)
    return layer


def random_density(kind, visible, seed=0, scale=0.6):
    """The density under a random context of two numbers in (-1, 1), as a recurrence gives."""
    layer = without_gradient(random_layer(kind, visible, 2, seed, scale))
    return layer(normal(2, seed=seed + 100).tanh())


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=generator(seed))


def random_frames(kind, *shape, seed=0):
    frames = normal(*shape, seed=seed)
    return frames if kind in CONTINUOUS else (frames > 0).double()


def affine(layer, parameter, weight, context):
    """A parameter under one context, written out."""
    bias, moved = getattr(layer, parameter), getattr(layer, weight).weight @ context
    return bias + moved.reshape(bias.shape)


@pytest.mark.parametrize("kind", KINDS)
def test_batches_equal_singles(kind):
    layer = without_gradient(random_layer(kind, 5, context=2))
    context, v = normal(3, 4, 2), random_frames(kind, 6, 3, 4, 5)
    density = layer(context)
    log_prob = density.log_prob(v)
    assert density.batch_shape == (3, 4) and density.visible_dim == 5
    assert log_prob.shape == (6, 3, 4) and log_prob.std() > 0.1
    for s, i, j in [(0, 0, 0), (5, 2, 3), (2, 1, 3)]:
        single = layer(context[i, j])
        assert single.batch_shape == ()
        assert torch.allclose(single.log_prob(v[s, i, j]), log_prob[s, i, j])
        if hasattr(density, "mean"):
            assert torch.allclose(single.mean, density.mean[i, j])


@pytest.mark.parametrize("kind", KINDS)
def test_samples_have_shape_and_kind_and_follow_the_generator_alone(kind):
    density = random_layer(kind, 5, context=2)(normal(3, 4, 2))
    drawn = density.sample((2, 7), generator(1))
    assert drawn.shape == (2, 7, 3, 4, 5) and drawn.dtype == torch.float64
    assert not drawn.requires_grad
    assert density.sample((), generator(1)).shape == (3, 4, 5)
    torch.manual_seed(9)
    assert torch.equal(drawn, density.sample((2, 7), generator(1)))
    assert not torch.equal(drawn, density.sample((2, 7), generator(2)))
    if kind not in CONTINUOUS:
        assert set(drawn.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("kind", KINDS)
def test_samples_of_a_batch_each_follow_their_own_context(kind):
    layer = without_gradient(random_layer(kind, 3, context=2))
    context = torch.tensor([[1.5, 1.5], [-1.5, -1.5]], dtype=torch.float64)
    together = layer(context).sample((40_000,), generator(0))
    for i in range(2):
        alone = layer(context[i]).sample((40_000,), generator(1))
        difference = together[:, i].mean(0) - alone.mean(0)
        error = ((together[:, i].var(0) + alone.var(0)) / 40_000).sqrt()
        assert (difference.abs() < 5 * error).all()
    between = (together[:, 0].mean(0) - together[:, 1].mean(0)).abs()
    assert (between > 10 * error).any()  # the contexts do differ


@pytest.mark.parametrize("kind", ["bernoulli", "gaussian", "mixture"])
def test_mean_is_that_of_the_samples(kind):
    density = random_density(kind, 4, seed=3)
    drawn = density.sample((50_000,), generator(0))
    error = drawn.std(0) / math.sqrt(len(drawn))
    assert ((drawn.mean(0) - density.mean).abs() < 5 * error).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("context_dim", [0, 2])
def test_gradient_of_every_parameter_is_that_of_finite_differences(kind, context_dim):
    layer = random_layer(kind, 3, context_dim, seed=2)
    v = random_frames(kind, 4, 3, seed=3)
    context = normal(4, 2, seed=4).requires_grad_() if context_dim else None
    names, values = zip(*layer.named_parameters(), strict=True)

    def log_prob(context, *values):
        return functional_call(layer, dict(zip(names, values, strict=True)), (context,)).log_prob(v)

    assert torch.autograd.gradcheck(log_prob, (context, *values))


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_has_a_part_in_the_density_and_so_has_the_context(kind):
    layer, context = random_layer(kind, 5, context=2), normal(20, 2).requires_grad_()
    layer(context).log_prob(random_frames(kind, 20, 5)).sum().backward()
    for name, parameter in layer.named_parameters():
        used = parameter.grad[:-1] if name == "W" else parameter.grad
        assert (used != 0).all(), name
    assert (context.grad != 0).all()
    if kind in ("nade", "rnade"):  # there is no unit after the last one
        assert (layer.W.grad[-1] == 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_density_before_training_has_a_gradient_and_is_finite_in_float32(kind):
    layer = MAKERS[kind](88, 5)
    log_prob = layer(torch.randn(3, 5)).log_prob(random_frames(kind, 3, 88).float())
    assert log_prob.dtype == torch.float32 and log_prob.isfinite().all()
    log_prob.sum().backward()
    assert all(p.grad.isfinite().all() and (p.grad != 0).any() for p in layer.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_float32_agrees_with_float64(kind):
    layer = without_gradient(random_layer(kind, 88, context=2, scale=0.3))
    context, v = normal(50, 2), random_frames(kind, 50, 88)
    double = layer(context).log_prob(v)
    single = layer.float()(context.float()).log_prob(v.float())
    assert torch.allclose(single.double(), double, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_context_that_does_not_fit_is_refused_in_the_words_of_the_energy_densities(kind):
    for context_dim, context in [(0, torch.zeros(2)), (2, None)]:
        with pytest.raises(ValueError) as expected:
            BernoulliRBM(4, 3, context_dim)(context)
        with pytest.raises(ValueError) as error:
            MAKERS[kind](4, context_dim)(context)
        assert str(error.value) == str(expected.value)
    with pytest.raises(ValueError, match=r"context: .*context_dim 2, got .*\(5, 3\)"):
        MAKERS[kind](4, 2)(torch.zeros(5, 3))


@pytest.mark.parametrize("kind", KINDS)
def test_frames_that_would_only_fit_by_broadcasting_are_refused(kind):
    density = MAKERS[kind](4, 2)(torch.zeros(5, 2))
    for shape in [(5, 1), (1, 4), (4,), (5, 4, 4)]:
        with pytest.raises(ValueError, match=r"^v: .*\(\*S, 5, 4\), got "):
            density.log_prob(torch.zeros(shape))


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_below_one_are_refused_by_name(kind):
    with pytest.raises(ValueError, match=r"^visible_dim: expected at least 1, got 0$"):
        MAKERS[kind](0, 2)
    with pytest.raises(ValueError, match=r"^context_dim: expected at least 0, got -1$"):
        MAKERS[kind](3, -1)


def test_sizes_of_their_own_are_refused_by_name():
    for name, make in [
        ("components", lambda: GaussianMixture(3, 0)),
        ("components", lambda: RNADE(3, 2, 0)),
        ("hidden_dim", lambda: RNADE(3, 0, 2)),
        ("hidden_dim", lambda: NADE(3, 0)),
    ]:
        with pytest.raises(ValueError, match=rf"^{name}: expected at least 1, got 0$"):
            make()


@pytest.mark.parametrize("kind", KINDS)
def test_a_context_of_zeros_is_no_context(kind):
    layer = without_gradient(random_layer(kind, 5, context=2))
    plain = MAKERS[kind](5, 0).double()
    plain.load_state_dict(layer.state_dict(), strict=False)
    v = random_frames(kind, 7, 5)
    still = layer(torch.zeros(7, 2, dtype=torch.float64)).log_prob(v)
    assert torch.allclose(plain(None).log_prob(v), still)
    assert not torch.allclose(layer(normal(7, 2)).log_prob(v), still)


def test_bernoulli_is_that_of_torch():
    layer, u = without_gradient(random_layer("bernoulli", 4, context=2)), normal(2)
    logits = affine(layer, "visible_bias", "context_to_visible", u)
    v = exact.all_frames(4)
    expected = distributions.Bernoulli(logits=logits).log_prob(v).sum(-1)
    assert torch.allclose(layer(u).log_prob(v), expected)
    assert layer(u).log_prob(v).logsumexp(0) == pytest.approx(0.0, abs=1e-12)


def test_gaussian_is_that_of_torch():
    layer, u = without_gradient(random_layer("gaussian", 4, context=2)), normal(2)
    mean = affine(layer, "mean", "context_to_mean", u)
    raw = affine(layer, "raw_deviation", "context_to_deviation", u)
    v = normal(9, 4)
    expected = distributions.Normal(mean, MIN_DEVIATION + raw.exp()).log_prob(v).sum(-1)
    assert torch.allclose(layer(u).log_prob(v), expected)


def test_mixture_is_that_of_torch():
    layer, u = without_gradient(random_layer("mixture", 4, context=2)), normal(2)
    logits = affine(layer, "logits", "context_to_logits", u)
    means = affine(layer, "means", "context_to_means", u)
    raw = affine(layer, "raw_deviations", "context_to_deviations", u)
    components = distributions.Independent(
        distributions.Normal(means, MIN_DEVIATION + raw.exp()), 1
    )
    weights = distributions.Categorical(logits=logits)
    expected = distributions.MixtureSameFamily(weights, components)
    v = normal(9, 4)
    assert torch.allclose(layer(u).log_prob(v), expected.log_prob(v))
    assert torch.allclose(layer(u).mean, expected.mean)


def quadrature(step=0.0125, half_width=6.0):
    """Points and weights of the trapezoid rule in `t` with `v = sinh t`: fine around 0 where the
    deviations may be small, and out to 200 where they may be large."""
    t = torch.arange(-half_width, half_width, step, dtype=torch.float64)
    return t.sinh(), t.cosh() * step


@pytest.mark.parametrize("kind", CONTINUOUS)
@pytest.mark.parametrize("seed", range(3))
def test_density_of_one_unit_integrates_to_one(kind, seed):
    points, weights = quadrature(step=0.001)
    mass = (random_density(kind, 1, seed).log_prob(points[:, None]).exp() * weights).sum()
    assert mass == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("kind", CONTINUOUS)
@pytest.mark.parametrize("seed", range(3))
def test_density_of_two_units_integrates_to_one(kind, seed):
    points, weights = quadrature()
    log_prob = random_density(kind, 2, seed, scale=0.4).log_prob(
        torch.cartesian_prod(points, points)
    )
    mass = (log_prob.exp() * torch.cartesian_prod(weights, weights).prod(-1)).sum()
    assert mass == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("kind", CONTINUOUS)
def test_samples_fall_into_the_cells_of_the_plane_as_the_density_says(kind):
    density, cells, per_cell, width = random_density(kind, 2, seed=1, scale=0.4), 8, 60, 0.75
    edge, step = cells * width / 2, width / per_cell
    middles = torch.arange(-edge, edge, step, dtype=torch.float64) + step / 2
    p = density.log_prob(torch.cartesian_prod(middles, middles)).exp() * step**2
    p = p.view(cells, per_cell, cells, per_cell).sum((1, 3)).flatten()
    drawn = density.sample((40_000,), generator(3))
    index = ((drawn + edge) / width).floor().long()
    inside = ((index >= 0) & (index < cells)).all(-1)
    seen = torch.bincount(index[inside] @ torch.tensor([cells, 1]), minlength=cells**2).double()
    common = p * len(drawn) > 10
    assert common.sum() > 5
    expected, found = (p * len(drawn))[common], seen[common]
    expected = torch.cat([expected, (len(drawn) - expected.sum())[None]])  # all other cells
    found = torch.cat([found, (len(drawn) - found.sum())[None]])
    statistic, freedom = ((found - expected) ** 2 / expected).sum(), len(found) - 1
    assert statistic < freedom + 6 * math.sqrt(2 * freedom)


@pytest.mark.parametrize("kind", CONTINUOUS)
@pytest.mark.parametrize("raw", [-1e30, -200.0, 200.0, 1e30])
def test_deviations_hold_for_any_parameters(kind, raw):
    layer = MAKERS[kind](3, 0)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if name.startswith("raw_"):
                parameter.fill_(raw)
            elif name == "output_bias":
                parameter.chunk(3, -1)[2].fill_(raw)
    v = torch.tensor([[0.0, 0.0, 0.0], [1.0, -2.0, 1e4]])
    log_prob = layer(None).log_prob(v)
    log_prob.sum().backward()
    assert log_prob.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())


@pytest.mark.parametrize("kind", CONTINUOUS)
def test_likelihood_is_bounded_by_the_floor_of_the_deviations(kind):
    layer = MAKERS[kind](3, 0).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        for name, parameter in layer.named_parameters():
            if name.startswith("raw_"):
                parameter.fill_(-1000.0)
            elif name == "output_bias":
                parameter.chunk(3, -1)[2].fill_(-1000.0)
    at_mean = layer(None).log_prob(torch.zeros(3, dtype=torch.float64))
    bound = -3 * math.log(MIN_DEVIATION * math.sqrt(2 * math.pi))
    assert at_mean.item() == pytest.approx(bound)


def test_a_mixture_of_equal_components_is_one_gaussian():
    mixture, gaussian = GaussianMixture(4, 3).double(), IndependentGaussian(4).double()
    with torch.no_grad():
        mixture.logits.copy_(normal(3))
        mixture.means.copy_(gaussian.mean.copy_(normal(4, seed=1)))
        mixture.raw_deviations.copy_(gaussian.raw_deviation.copy_(normal(4, seed=2)))
    v = normal(9, 4, seed=3)
    assert torch.allclose(mixture(None).log_prob(v), gaussian(None).log_prob(v))


def test_components_are_apart_before_training_whatever_the_size_of_the_frame():
    for visible in (2, 200):
        means = GaussianMixture(visible, 4).means.detach()
        assert (torch.pdist(means) > 0.01).all() and torch.pdist(means).mean() < 4
