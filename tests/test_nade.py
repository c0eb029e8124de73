"""NADE and RNADE against loops over the units, enumeration, and plain automatic differentiation."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from densities import generator, without_gradient
from torch import distributions

from cgrnn.layers import NADE, RNADE, nade
from cgrnn.layers.tractable import MIN_DEVIATION
from evaluation import exact

SEEDS = range(5)


def randomised(layer, seed=0, scale=1.0):
    """The layer in float64 with all parameters N(0, scale²)."""
    random = generator(seed)
    with torch.no_grad():
        for parameter in layer.double().parameters():
            parameter.normal_(std=scale, generator=random)
    return without_gradient(layer)


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=generator(seed))


def plain_readout(v, hidden_bias, weight, output_weight, rescale, sees_itself=False):
    """The readout as torch differentiates it, with all hidden units in memory."""
    seen = torch.cumsum(v.t().unsqueeze(-1) * weight.unsqueeze(1), 0)
    if not sees_itself:
        seen = torch.cat([torch.zeros_like(seen[:1]), seen[:-1]])
    return torch.sigmoid((hidden_bias + seen) * rescale[:, None, None]) @ output_weight


def nade_loop(layer, u, v):
    """`log p(v)` of one frame, unit by unit."""
    b = layer.visible_bias + layer.context_to_visible.weight @ u
    c = layer.hidden_bias + layer.context_to_hidden.weight @ u
    total = 0.0
    for d in range(len(v)):
        h = torch.sigmoid(c + sum(v[e] * layer.W[e] for e in range(d)))
        on = float(torch.sigmoid(b[d] + layer.output_weight[d] @ h))
        total += math.log(on if v[d] == 1 else 1 - on)
    return total


def rnade_loop(layer, u, v):
    """`log p(v)` of one frame, unit by unit."""
    moved = layer.context_to_output.weight @ u
    bias = layer.output_bias + moved.reshape(layer.output_bias.shape)
    c = layer.hidden_bias + layer.context_to_hidden.weight @ u
    total = 0.0
    for d in range(len(v)):
        a = c + sum(v[e] * layer.W[e] for e in range(d))
        h = torch.sigmoid(layer.rescale[d] * a)
        logits, mean, raw = (bias[d] + h @ layer.output_weight[d]).split(layer.components)
        mixture = distributions.MixtureSameFamily(
            distributions.Categorical(logits=logits),
            distributions.Normal(mean, MIN_DEVIATION + raw.exp()),
        )
        total += float(mixture.log_prob(v[d]))
    return total


@pytest.mark.parametrize("seed", SEEDS)
def test_nade_sums_to_one_under_every_context(seed):
    layer, context = randomised(NADE(8, 5, context_dim=3), seed), normal(4, 3, seed=seed)
    frames = exact.all_frames(8)
    log_prob = layer(context).log_prob(frames[:, None].expand(-1, 4, -1))
    assert torch.allclose(log_prob.logsumexp(0), torch.zeros(4, dtype=torch.float64))
    assert (log_prob.exp().max(0).values > 4 / 2**8).all()  # far from uniform


def test_a_unit_that_sees_itself_is_caught_by_the_sum(monkeypatch):
    layer, frames = randomised(NADE(8, 5)), exact.all_frames(8)
    monkeypatch.setattr(nade._Readout, "apply", plain_readout)
    assert layer(None).log_prob(frames).logsumexp(0) == pytest.approx(0.0, abs=1e-12)
    sees_itself = partial(plain_readout, sees_itself=True)
    monkeypatch.setattr(nade._Readout, "apply", sees_itself)
    assert abs(float(layer(None).log_prob(frames).logsumexp(0))) > 0.05


@pytest.mark.parametrize("seed", SEEDS)
def test_nade_is_the_product_of_its_conditionals(seed):
    layer, u = randomised(NADE(6, 4, context_dim=3), seed), normal(3, seed=seed)
    frames = exact.all_frames(6)[::5]
    expected = torch.tensor([nade_loop(layer, u, v) for v in frames], dtype=torch.float64)
    assert torch.allclose(layer(u).log_prob(frames), expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_rnade_is_the_product_of_its_conditionals(seed):
    layer, u = randomised(RNADE(6, 4, 3, context_dim=2), seed, 0.7), normal(2, seed=seed)
    frames = normal(9, 6, seed=seed)
    expected = torch.tensor([rnade_loop(layer, u, v) for v in frames], dtype=torch.float64)
    assert torch.allclose(layer(u).log_prob(frames), expected)


def test_a_conditional_depends_on_all_units_before_it_and_on_no_other():
    for layer in (randomised(NADE(6, 4)), randomised(RNADE(6, 4, 2))):
        density, v = layer(None), (normal(6) > 0).double()
        for e in range(6):
            other = v.clone()
            other[e] = 1 - other[e]
            same = (density.conditionals(v) == density.conditionals(other)).all(-1)
            assert same.tolist() == [d <= e for d in range(6)]


def chi_square(drawn, log_prob):
    """Pearson's statistic of binary frames `(N, V)`, and its degrees of freedom."""
    p, count = log_prob.exp(), len(drawn)
    index = (drawn @ (2.0 ** torch.arange(drawn.shape[-1])).double()).long()
    seen = torch.bincount(index, minlength=len(p)).double()
    return float(((seen - count * p) ** 2 / (count * p)).sum()), len(p) - 1


def test_nade_draws_frames_as_often_as_it_says():
    layer = randomised(NADE(4, 3, context_dim=2), 2, 0.5)
    density = layer(torch.tensor([[1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64))
    log_prob = density.log_prob(exact.all_frames(4)[:, None].expand(-1, 2, -1))
    assert log_prob.exp().min() * 40_000 > 5 and (log_prob[:, 0] - log_prob[:, 1]).abs().max() > 0.5
    drawn = density.sample((40_000,), generator(0))
    for i in range(2):
        statistic, freedom = chi_square(drawn[:, i], log_prob[:, i])
        assert statistic < freedom + 6 * math.sqrt(2 * freedom)
        statistic, freedom = chi_square(drawn[:, i], log_prob[:, 1 - i])
        assert statistic > freedom + 20 * math.sqrt(2 * freedom)


def test_rnade_draws_each_unit_from_its_conditional():
    density = randomised(RNADE(3, 4, 2), 1, 0.8)(None)
    drawn = density.sample((5_000,), generator(0))
    logits, mean, raw = density.conditionals(drawn).chunk(3, -1)
    mixture = distributions.MixtureSameFamily(
        distributions.Categorical(logits=logits),
        distributions.Normal(mean, MIN_DEVIATION + raw.exp()),
    )
    ranks = mixture.cdf(drawn).sort(0).values  # independent and uniform, if the draws are right
    even = (torch.arange(5_000, dtype=torch.float64)[:, None] + 0.5) / 5_000
    assert ((ranks - even).abs().amax(0) < 2.5 / math.sqrt(5_000)).all()
    correlation = torch.corrcoef(mixture.cdf(drawn).T) - torch.eye(3, dtype=torch.float64)
    assert (correlation.abs() < 5 / math.sqrt(5_000)).all()


def readout_inputs(frames, visible, hidden, parameters):
    shapes = [(frames, visible), (frames, hidden), (visible, hidden)]
    shapes += [(visible, hidden, parameters), (visible,)]
    return [normal(*shape, seed=n).requires_grad_() for n, shape in enumerate(shapes)]


@pytest.mark.parametrize("visible", [1, 2, 5])
def test_readout_passes_gradcheck_for_every_input(visible):
    assert torch.autograd.gradcheck(nade._Readout.apply, readout_inputs(3, visible, 4, 2))


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_readout_and_its_gradients_are_those_of_torch(dtype, tolerance):
    """At the size of an audio frame: the backward pass takes 150 units off the activations."""
    inputs = readout_inputs(20, 150, 30, 3)
    theirs = plain_readout(*inputs)
    direction = normal(*theirs.shape, seed=9)
    expected = theirs, *torch.autograd.grad(theirs, inputs, direction)
    inputs = [tensor.detach().to(dtype).requires_grad_() for tensor in inputs]
    mine = nade._Readout.apply(*inputs)
    found = mine, *torch.autograd.grad(mine, inputs, direction.to(dtype))
    for ours, true in zip(found, expected, strict=True):
        assert ours.dtype == dtype and (ours - true).norm() < tolerance * true.norm()


@pytest.mark.parametrize("layer", [NADE(40, 30, context_dim=3), RNADE(40, 30, 2, context_dim=3)])
def test_training_keeps_no_hidden_units_of_every_unit_and_frame(layer):
    kept = []

    def keep(tensor):
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(torch.zeros(500, 3)).log_prob(torch.zeros(500, 40))
    assert len(kept) > 5 and max(kept) <= 500 * 40 * 6  # the parameters of the conditionals


def test_nade_without_weights_is_independent_units():
    layer = randomised(NADE(5, 3))
    layer.output_weight.zero_()
    v = exact.all_frames(5)
    expected = distributions.Bernoulli(logits=layer.visible_bias).log_prob(v).sum(-1)
    assert torch.allclose(layer(None).log_prob(v), expected)


def test_context_moves_the_biases_and_nothing_else():
    layer, u = randomised(NADE(5, 3, context_dim=2)), normal(2)
    moved = randomised(NADE(5, 3))
    moved.load_state_dict(layer.state_dict(), strict=False)
    moved.visible_bias += layer.context_to_visible.weight @ u
    moved.hidden_bias += layer.context_to_hidden.weight @ u
    v = exact.all_frames(5)
    assert torch.allclose(layer(u).log_prob(v), moved(None).log_prob(v))


@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_nade_is_finite_for_huge_parameters_in_float32(scale):
    layer = NADE(88, 20)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(std=scale, generator=generator(0))
    v = (torch.rand(30, 88, generator=generator(1)) < 0.5).float()
    log_prob = layer(None).log_prob(v)
    log_prob.sum().backward()
    assert log_prob.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())


def test_no_frames_have_no_likelihood():
    density = NADE(4, 3, context_dim=2)(torch.zeros(0, 2))
    assert density.log_prob(torch.zeros(0, 4)).shape == (0,)


def test_nade_learns_what_independent_units_cannot():
    """Units that repeat the first one cost one coin: log 2 a frame, not V log 2."""
    torch.manual_seed(0)
    layer = NADE(6, 8)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    v = torch.tensor([[0.0] * 6, [1.0] * 6])
    for _ in range(150):
        optimizer.zero_grad()
        loss = -layer(None).log_prob(v).mean()
        loss.backward()
        optimizer.step()
    assert math.log(2) < loss.item() < math.log(2) + 0.1
