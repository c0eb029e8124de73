"""Neural adaptive sequential Monte Carlo against quadrature over its latents."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from densities import generator

from cgrnn.models.nasmc import NASMC
from samplers import particles

FRAMES = torch.tensor([[[1.0, 0.0], [1.0, 1.0]]]).double()
POINTS = 181


def make(visible="binary", particles=8):
    torch.manual_seed(0)
    model = NASMC(2, 1, 3, 3, particles, visible).double()
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, std=0.1 if "deviation" in name else 0.4)
    return model


def on_a_grid(model, frames, points=POINTS):
    """`log p(v_n, z_n | ·)` and `log q(z_n | ·)` of both frames where the first latent is z_i and
    the second z_j, each `(i, j)`; and the log of a cell's width."""
    line = torch.linspace(-14, 14, points).double()
    grid = torch.cartesian_prod(line, line)
    past, _ = model.past(frames)
    state, found = model.start((len(grid), 1)), []
    for n in range(2):
        before, seen, own = (part[:, n].expand(len(grid), 1, -1) for part in past)
        z = grid[:, n].view(-1, 1, 1)
        prior = model.prior(state, before)
        proposal = model.posterior(state, before, seen, prior)
        context, emitted = model.emit(state, z, before)
        fit = model.layer(context).log_prob(frames[:, n].expand(len(grid), 1, -1))
        found.append((fit + prior.log_prob(z), proposal.log_prob(z)))
        state = model.advance(emitted, z, own)
    return [[x.view(points, points) for x in pair] for pair in found], math.log(28 / (points - 1))


def gradients(model, frames, calls, seed=0):
    """Mean over calls of the gradient of the loss, and its standard error, by parameter."""
    found: dict[str, list[torch.Tensor]] = {}
    lengths = torch.full((len(frames),), 2)
    for call in range(calls):
        model.zero_grad()
        model.loss(frames, lengths, generator(seed + call)).backward()
        for name, parameter in model.named_parameters():
            found.setdefault(name, []).append(parameter.grad.clone())
    stacked = {name: torch.stack(parts) for name, parts in found.items()}
    return {name: (x.mean(0), x.std(0) / math.sqrt(calls)) for name, x in stacked.items()}


def inclusive_gradients(model, points):
    """`Σ_n E[∇log q(z_n) + ∇log p(v_n, z_n)]` over `p(z_≤n | v_≤n)`, as of the loss."""
    ((p_first, q_first), (p_second, q_second)), width = on_a_grid(model, FRAMES, points)
    mass = q_first[:, 0].logsumexp(0) + width
    assert float(mass.detach()) == pytest.approx(0.0, abs=1e-6)  # the grid is wide and fine
    # Of the first frame alone: the second coordinate of the grid plays no part.
    first = p_first[:, 0].detach().softmax(0)
    both = (p_first + p_second).detach().flatten().softmax(0)
    target = (first * (p_first[:, 0] + q_first[:, 0])).sum()
    target = target + (both * (p_second + q_second).flatten()).sum()
    names, parameters = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(-target / 2, parameters), strict=True))


def far(found, exact, slack):
    """Standard errors by which the worst number of all gradients is out beyond its slack."""
    return max(
        float((((mean - exact[name]).abs() - slack[name]).clamp(min=0) / error).max())
        for name, (mean, error) in found.items()
    )


@pytest.mark.parametrize("visible", ["binary", "continuous"])
def test_gradients_are_those_of_the_inclusive_divergence_and_of_the_likelihood(visible):
    model = make(visible)
    coarse, exact = (inclusive_gradients(model, points) for points in (181, 361))
    assert all(gradient.abs().max() > 0 for gradient in exact.values())
    # Quadrature errs where a ReLU bends, by less than halving the step has moved it.
    slack = {name: (coarse[name] - exact[name]).abs().max() for name in exact}
    model.particles = 1000
    biased = {name: error + 3 / model.particles for name, error in slack.items()}
    assert far(gradients(model, FRAMES.repeat(4, 1, 1), 40), exact, biased) < 5
    # With as few particles as may be, the weights correct too little: the test can see it.
    model.particles = 2
    assert far(gradients(model, FRAMES.repeat(2000, 1, 1), 20), exact, biased) > 10


@pytest.mark.parametrize("visible", ["binary", "continuous"])
def test_estimates_of_the_sweep_and_of_the_filter_are_the_likelihoods(visible):
    model, copies = make(visible), 5000
    (first, second), width = on_a_grid(model, FRAMES)
    truth = ((first[0] + second[0]).flatten().logsumexp(0) + 2 * width).detach()
    frames, lengths = FRAMES.repeat(copies, 1, 1), torch.full((copies,), 2)
    every = torch.ones(copies, 2, dtype=torch.bool)
    swept = model.scores(frames, lengths, every, None, generator(0)).log_prob.view(copies, 2).sum(1)
    walk = model.walk(frames, lengths, 8, generator(1))
    filtered = particles.log_likelihood(walk, lengths, "filter", generator(2))
    for found in (swept, filtered):
        ratio = (found - truth).exp()
        assert abs(ratio.mean() - 1) < 5 * ratio.std() / math.sqrt(copies)
        assert found.mean() < truth
    loss = model.loss(frames, lengths, generator(0)).detach()
    assert float(loss) == pytest.approx(-float(swept.mean()) / 2)


def test_likelihood_of_all_sequences_sums_to_one():
    model = make()
    sequences = torch.tensor(list(itertools.product((0.0, 1.0), repeat=4))).double().view(16, 2, 2)
    masses = []
    for frames in sequences.split(1):
        (first, second), width = on_a_grid(model, frames)
        masses.append(((first[0] + second[0]).flatten().logsumexp(0) + 2 * width).detach())
    assert float(torch.stack(masses).exp().sum()) == pytest.approx(1.0, abs=1e-5)


def data(count=64):
    """Frames that repeat the one before, of their own first."""
    first = torch.bernoulli(torch.full((count, 1, 2), 0.5), generator=generator(0))
    return first.repeat(1, 5, 1), torch.full((count,), 5)


def trained(model, parameters, steps):
    frames, lengths = data()
    optimizer = torch.optim.Adam(parameters, lr=0.02)
    for seed in range(steps):
        optimizer.zero_grad()
        model.loss(frames, lengths, generator(seed)).backward()
        optimizer.step()


def estimated(model, paths, method):
    frames, lengths = data()
    frames, lengths = frames.repeat(2, 1, 1), lengths.repeat(2)
    walk = model.walk(frames, lengths, paths, generator(0))
    found = particles.log_likelihood(walk, lengths, method, generator(1))
    return float(found.mean()), float(found.std()) / math.sqrt(len(found))


def test_training_raises_the_filters_estimate():
    torch.manual_seed(0)
    model = NASMC(2, 2, 6, 6)
    before, _ = estimated(model, 50, "filter")
    trained(model, model.parameters(), 120)
    after, _ = estimated(model, 50, "filter")
    assert before < -5 * 2 * math.log(2) + 0.5  # of coins without memory
    assert after > before / 2


def test_a_proposal_alone_learns_to_propose():
    """The model held fixed, the likelihood is too: the gap of one path narrows."""
    torch.manual_seed(0)
    model = NASMC(2, 2, 6, 6)
    torch.nn.init.normal_(model.layer.context_to_visible.weight, std=4.0)
    torch.nn.init.normal_(model.of_latent[0].weight, std=2.0)
    own = ("to_posterior", "proposal")
    mine = [p for name, p in model.named_parameters() if name.startswith(own)]
    start = {name: p.clone() for name, p in model.named_parameters() if not name.startswith(own)}
    before, _ = estimated(model, 1, "paths")
    truth, error = estimated(model, 200, "filter")
    trained(model, mine, 100)
    after, spread = estimated(model, 1, "paths")
    assert all(torch.equal(model.get_parameter(name), p) for name, p in start.items())
    assert before + 10 * spread < after < truth + 5 * error
    assert truth - after < 0.7 * (truth - before)


def test_padding_given_and_later_frames():
    model = make()
    frames = torch.bernoulli(torch.full((3, 4, 2), 0.5), generator=generator(0)).double()
    lengths = torch.tensor([4, 2, 3])
    padded = torch.cat([frames, torch.ones(3, 3, 2).double()], 1)
    for given in (0, 1):
        model.given_frames = given
        assert torch.allclose(*(model.loss(f, lengths, generator(0)) for f in (frames, padded)))
    assert not model.sweep(frames, generator(0)).evidence[:, 0].any()
    changed = frames.clone()
    changed[:, 2:] = 1 - changed[:, 2:]
    before, after = (model.predict(f, generator(0), samples=50) for f in (frames, changed))
    assert torch.equal(before[:, :, :3], after[:, :, :3])
    assert model.generate(2, 3, frames, generator(0)).shape == (3, 6, 2)
    with pytest.raises(ValueError, match="particles: expected at least 2, got 1"):
        NASMC(particles=1)
