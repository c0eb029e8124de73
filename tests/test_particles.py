"""Likelihoods by paths and by a particle filter, against models whose likelihood is known."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from densities import generator
from torch.nn.functional import softplus

from cgrnn.models import CGRNN, RNNRBM
from cgrnn.models.lgssm import LGSSM, LGSSMWalk
from evaluation import exact
from samplers import particles

COPIES = 4000


def lgssm():
    """A slow state under noise about as large: the future often refutes a path."""
    model = LGSSM(2, 1).double()
    with torch.no_grad():
        model.transition.fill_(0.9)
        model.emission.copy_(torch.tensor([[1.0], [-0.7]]))
        model.raw_process.fill_(math.log(0.4))
        model.raw_visible.fill_(math.log(0.7))
        model.visible_mean.copy_(torch.tensor([0.3, -0.2]))
    return model


def sequence(model, frames=8):
    return model.generate(frames, 1, generator=generator(1))


def estimates(model, frames, paths, method, proposal="prior", seed=0, lengths=None):
    """One of each sequence in the batch."""
    lengths = torch.full((len(frames),), frames.shape[1]) if lengths is None else lengths
    random = generator(seed)
    walk = LGSSMWalk(model, frames, paths, random, proposal)
    return particles.log_likelihood(walk, lengths, method, random)


def errors_from_one(log_ratio):
    """Of the mean of `exp(estimate - truth)`, in its standard errors."""
    ratio = log_ratio.exp()
    return float((ratio.mean() - 1) / (ratio.std() / math.sqrt(len(ratio))))


@pytest.mark.parametrize("proposal", ["prior", "optimal"])
@pytest.mark.parametrize(("paths", "method"), [(1, "paths"), (6, "paths"), (6, "filter")])
def test_mean_of_the_likelihood_estimate_is_the_likelihood(paths, method, proposal):
    model = lgssm()
    frames = sequence(model, 4)
    truth = model.filtered(frames).log_prob.sum().detach()
    found = estimates(model, frames.expand(COPIES, -1, -1), paths, method, proposal)
    assert found.std() > 0.01
    assert abs(errors_from_one(found - truth)) < 5


def own_filter(walk, frames, fault=None):
    """A particle filter that resamples at every second frame by independent draws, and its
    mistakes."""
    total, log_weight = 0.0, 0.0
    for n in range(frames):
        log_weight = log_weight + walk.step()
        mean = log_weight.logsumexp(0) - math.log(len(log_weight))
        if n % 2 == 0:
            total = total if fault == "forgets the weight" else total + mean
            weight = log_weight.softmax(0) ** (-1 if fault == "chooses the worst" else 1)
            walk.select(torch.multinomial(weight.t(), 6, True, generator=walk.generator).t())
            log_weight = log_weight if fault == "keeps the weight" else 0.0
    return total + mean


FAULTS = ["forgets the weight", "chooses the worst", "keeps the weight"]


@pytest.mark.parametrize("fault", [None, *FAULTS])
def test_a_wrong_resampling_would_be_caught(fault):
    model = lgssm()
    frames = sequence(model)
    truth = model.filtered(frames).log_prob.sum().detach()
    walk = LGSSMWalk(model, frames.expand(COPIES, -1, -1), 6, generator(0), "prior")
    errors = abs(errors_from_one(own_filter(walk, 8, fault) - truth))
    assert errors < 5 if fault is None else errors > 10


def test_bounds_rise_to_the_likelihood_in_their_order():
    model = lgssm()
    frames = sequence(model, 20)
    truth = float(model.filtered(frames).log_prob.detach().sum())
    bounds = [
        estimates(model, frames.expand(500, -1, -1), paths, method)
        for paths, method in ((1, "paths"), (10, "paths"), (10, "filter"), (100, "filter"))
    ]
    for low, high in pairwise(bounds):
        error = (low.var() + high.var()).sqrt() / math.sqrt(500)
        assert low.mean() + 5 * error < high.mean()
    last = bounds[-1]
    assert last.mean() < truth + 5 * last.std() / math.sqrt(500)


def test_filter_converges_to_the_likelihood():
    """Its error falls as the root of the paths: 64 times the paths, an eighth of the error."""
    model = lgssm()
    frames = sequence(model, 20)
    truth = model.filtered(frames).log_prob.sum().detach()
    few, many = (
        (estimates(model, frames.expand(100, -1, -1), paths, "filter") - truth).square().mean()
        for paths in (64, 4096)
    )
    assert many.sqrt() < 0.2
    assert 1 / 16 < (many / few).sqrt() < 1 / 4


def test_looking_at_the_frame_makes_better_paths():
    model = lgssm()
    frames = sequence(model, 20).expand(500, -1, -1)
    blind, seeing = (
        estimates(model, frames, 10, "filter", proposal) for proposal in ("prior", "optimal")
    )
    error = (blind.var() + seeing.var()).sqrt() / math.sqrt(500)
    assert seeing.mean() > blind.mean() + 5 * error


@pytest.mark.parametrize("method", ["paths", "filter"])
def test_sequences_of_unequal_lengths_are_each_their_own(method):
    model = lgssm()
    lengths = torch.tensor([5, 2, 4])
    frames = model.generate(5, 3, generator=generator(2))
    log_prob = model.filtered(frames).log_prob.detach()
    truth = torch.where(torch.arange(5) < lengths[:, None], log_prob, 0.0).sum(1)
    frames[torch.arange(5) >= lengths[:, None]] = 9.0
    found = estimates(
        model, frames.repeat(COPIES, 1, 1), 6, method, lengths=lengths.repeat(COPIES)
    ).view(COPIES, 3)
    for some in (found - truth).unbind(1):
        assert abs(errors_from_one(some)) < 5


def test_systematic_resampling_rounds_each_share_and_is_right_on_average():
    random = generator(0)
    log_weight = torch.randn(7, 5, generator=random).double() * 2
    poor = torch.tensor([True, True, False, True, True])
    share = 7 * log_weight.softmax(0)
    counts = []
    for _ in range(4000):
        drawn = particles._ancestors(log_weight, poor, random)
        assert torch.equal(drawn[:, 2], torch.arange(7))
        counts.append(torch.stack([torch.bincount(d, minlength=7) for d in drawn.t()], 1))
    found = torch.stack(counts).double()[..., poor]
    share = share[:, poor]
    assert ((found == share.floor()) | (found == share.ceil())).all()
    part = share - share.floor()
    error = (part * (1 - part) / len(counts)).sqrt()
    assert ((found.mean(0) - share).abs() < 5 * error + 1e-9).all()


def gru(rnn, x, u):
    """The recurrence, written out: reset, update and candidate."""
    inside = (x @ rnn.weight_ih_l0.t() + rnn.bias_ih_l0).chunk(3, -1)
    across = (u @ rnn.weight_hh_l0.t() + rnn.bias_hh_l0).chunk(3, -1)
    reset, update = (torch.sigmoid(inside[i] + across[i]) for i in (0, 1))
    candidate = torch.tanh(inside[2] + reset * across[2])
    return (1 - update) * candidate + update * u


def spike_logits(layer, v, u):
    """Of `h` given `v` and `u`, the slabs integrated out: `(paths, H)`."""
    product = v @ layer.W
    bias = layer.hidden_bias + u @ layer.context_to_hidden.weight.t()
    if hasattr(layer, "mu"):
        alpha = layer.log_alpha.exp()
        return bias + product**2 / (2 * alpha) + layer.mu * product
    return bias + product


def frame_log_prob(layer, v, u):
    """`log p(v | u)`, by the sum over all frames."""
    bias = layer.visible_bias + u @ layer.context_to_visible.weight.t()

    def log_mass(frame):
        return bias @ frame + softplus(spike_logits(layer, frame, u)).sum(-1)

    every = torch.cartesian_prod(*[torch.tensor([0.0, 1.0]).double()] * len(v))
    return log_mass(v) - torch.stack([log_mass(frame) for frame in every]).logsumexp(0)


def brute_force(model, frames, nodes):
    """`log p(v_1..N)`: spikes enumerated, slabs at so many Gauss-Hermite nodes each."""
    layer, transition = model.layer, model.transition
    points, weights = (torch.from_numpy(x) for x in np.polynomial.hermite_e.hermegauss(nodes))
    weights = weights / weights.sum()
    u, log_weight = transition.initial[0], torch.zeros(1).double()
    for n, v in enumerate(frames):
        log_weight = log_weight + frame_log_prob(layer, v, u)
        if n == len(frames) - 1:
            return log_weight.logsumexp(0)
        on = torch.sigmoid(spike_logits(layer, v, u))
        slab = torch.ones_like(on)[..., None]
        if hasattr(layer, "mu"):
            alpha = layer.log_alpha.exp()
            slab = (v @ layer.W / alpha + layer.mu)[:, None] + points * alpha.rsqrt()[:, None]
            slab = slab.expand(*on.shape, nodes)
        values = torch.cat([torch.zeros_like(on)[..., None], slab], -1)  # (paths, H, choices)
        chances = torch.cat([(1 - on)[..., None], on[..., None] * weights], -1)
        choices = torch.cartesian_prod(*[torch.arange(values.shape[-1])] * on.shape[-1]).t()
        fed = values.gather(-1, choices.expand(len(u), -1, -1)).transpose(1, 2)
        chance = chances.gather(-1, choices.expand(len(u), -1, -1)).log().sum(1)
        inputs = torch.cat([v.expand(*fed.shape[:2], -1), fed], -1)
        u = gru(transition.rnn, inputs, u[:, None].expand(-1, fed.shape[1], -1)).flatten(0, 1)
        log_weight = (log_weight[:, None] + chance).flatten()
    raise AssertionError("no frames")


@pytest.mark.parametrize(
    ("kind", "nodes"), [(RNNRBM, 1), (CGRNN, 14)], ids=lambda value: getattr(value, "name", value)
)
def test_drawn_feedback_gives_the_likelihood_of_brute_force(kind, nodes):
    torch.manual_seed(0)
    model = kind(3, 2, 4, latents="sample", feedback="full", dropout=0.0).double().eval()
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, std=2.0 if "context" in name else 0.7)
    frames = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0], [1.0, 1.0, 0.0]]).double()
    with torch.no_grad():
        truth = brute_force(model, frames, nodes)
        if kind is CGRNN:  # the quadrature has converged
            assert abs(truth - brute_force(model, frames, nodes - 4)) < 1e-3

    def found(copies, paths, method):
        batch, lengths = frames.expand(copies, -1, -1), torch.full((copies,), 3)
        random = generator(0)
        walk = model.walk(batch, lengths, paths, random, exact.log_partition)
        return particles.log_likelihood(walk, lengths, method, random) - truth

    one = found(COPIES, 1, "paths")
    assert one.std() > 0.05
    assert one.mean() < -5 * one.std() / math.sqrt(COPIES)
    for method in particles.METHODS:
        assert abs(errors_from_one(found(COPIES, 4, method))) < 5
        # Whatever a thousand paths leave, a path's spread bounds it.
        assert found(4, 1000, method).abs().max() < 5 * one.exp().std() / math.sqrt(1000)
