"""The temporal sigmoid belief network against the sum over all its latents."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from densities import generator
from torch.nn.functional import binary_cross_entropy_with_logits

from cgrnn.models.tsbn import TSBN
from samplers import particles

PATHS = torch.tensor(list(itertools.product((0.0, 1.0), repeat=6))).double().view(64, 3, 2)
FRAMES = torch.tensor([[[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]]).double()
THREE = torch.tensor([3])


def make(visible="binary", std=1.0):
    torch.manual_seed(0)
    model = TSBN(2, 2, 4, visible).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return model


def coins(logits, h):
    return -binary_cross_entropy_with_logits(logits, h, reduction="none").sum(-1)


def affine(linear, *inputs):
    return torch.cat(inputs, -1) @ linear.weight.t() + linear.bias


def enumerated(model, frames, length):
    """`log p(v, h)` and `log q(h | v)` of all 64 paths, by the formulas; given frames count not."""
    joint, recognised = torch.zeros(64).double(), torch.zeros(64).double()
    h_before, v_before = torch.zeros(64, 2).double(), torch.zeros(64, 2).double()
    for n in range(length):
        h, v = PATHS[:, n], frames[0, n].expand(64, -1)
        prior = coins(affine(model.to_prior, h_before, v_before), h)
        context = torch.cat([h, v_before], -1)
        if n < model.given_frames:
            joint, recognised = joint + prior, recognised + prior
        else:
            fit = model.layer(context).log_prob(v)
            joint = joint + prior + fit
            recognised = recognised + coins(affine(model.to_posterior, h_before, v, v_before), h)
        h_before, v_before = h, v
    left = 2 ** (2 * (3 - length))  # a shorter sequence is met once for each end of the path
    return joint, recognised, left


def bound(model, frames, length=3):
    joint, recognised, left = enumerated(model, frames, length)
    return (recognised.exp() * (joint - recognised)).sum() / left


def log_likelihood(model, frames):
    return enumerated(model, frames, 3)[0].logsumexp(0).detach()


def gradients(model, frames, lengths, calls=60, seed=0):
    """Mean of the loss's gradients over calls, and their standard errors, by parameter."""
    found: dict[str, list[torch.Tensor]] = {}
    for call in range(calls):
        model.zero_grad()
        model.loss(frames, lengths, generator(seed + call)).backward()
        for name, parameter in model.named_parameters():
            found.setdefault(name, []).append(parameter.grad.clone())
    stacked = {name: torch.stack(parts) for name, parts in found.items()}
    return {name: (x.mean(0), x.std(0) / math.sqrt(calls)) for name, x in stacked.items()}


@pytest.mark.parametrize("deviation", [1.0, 3.0])
@pytest.mark.parametrize("given", [0, 1])
@pytest.mark.parametrize("visible", ["binary", "continuous"])
def test_gradient_is_that_of_the_exact_bound(visible, given, deviation):
    """For every parameter; with running statistics of some past, and two lengths in a batch. The
    posterior's is divided by the deviation."""
    model = make(visible)
    model.given_frames = given
    model.mean_signal.fill_(-1.5)
    model.deviation.fill_(deviation)
    copies = 400
    frames, lengths = FRAMES.repeat(2 * copies, 1, 1), torch.tensor([3, 2]).repeat(copies)
    found = gradients(model, frames, lengths)
    model.zero_grad()
    total = bound(model, FRAMES, 3) + bound(model, FRAMES, 2)
    (-total / (5 - 2 * given)).backward()
    for name, parameter in model.named_parameters():
        if name.startswith("baseline"):
            continue
        mean, error = found[name]
        share = deviation if name.startswith("to_posterior") else 1.0
        assert parameter.grad.abs().max() > 1e-3
        assert ((mean - parameter.grad / share).abs() < 5 * error + 1e-9).all(), name


def test_annealed_divergence_is_weighted_in_the_gradient_too():
    model = make()
    model.kl_weight = 0.3
    found = gradients(model, FRAMES.repeat(800, 1, 1), THREE.repeat(800))
    model.zero_grad()
    joint, recognised, _ = enumerated(model, FRAMES, 3)
    fit = torch.zeros(64).double()
    v_before = torch.zeros(64, 2).double()
    for n in range(3):
        v = FRAMES[0, n].expand(64, -1)
        fit = fit + model.layer(torch.cat([PATHS[:, n], v_before], -1)).log_prob(v)
        v_before = v
    weighted = fit + 0.3 * (joint - fit - recognised)
    (-(recognised.exp() * weighted).sum() / 3).backward()
    for name in ("to_posterior.weight", "to_prior.weight", "layer.visible_bias"):
        mean, error = found[name]
        exact = model.get_parameter(name).grad
        assert ((mean - exact).abs() < 5 * error + 1e-9).all(), name


def test_baselines_reduce_the_variance():
    """None, then the running mean, then the network too, learned by the loss alone."""
    model = make(std=0.7)
    with torch.no_grad():
        model.layer.visible_bias.copy_(torch.tensor([-3.0, 2.0]))
        for parameter in model.baseline[-1].parameters():
            parameter.zero_()
    frames = torch.bernoulli(torch.full((100, 3, 2), 0.5), generator=generator(0)).double()
    lengths = torch.full((100,), 3)

    def spread():
        found = gradients(model, frames, lengths, calls=100)
        return float(sum(found[f"to_posterior.{x}"][1].square().sum() for x in ("weight", "bias")))

    bare = spread()
    model.train()
    for seed in range(100):
        model.loss(frames, lengths, generator(seed))
    model.eval()
    model.deviation.fill_(1.0)
    centred = spread()
    optimizer = torch.optim.Adam(model.baseline.parameters(), lr=0.04)
    for seed in range(150):
        optimizer.zero_grad()
        model.loss(frames, lengths, generator(seed)).backward()
        optimizer.step()
    # A variance from 100 gradients is known to about a seventh.
    assert centred < 0.8 * bare
    assert spread() < 0.8 * centred


def test_running_statistics_follow_the_signal_in_training_alone():
    model = make()
    frames, lengths = FRAMES.repeat(500, 1, 1), THREE.repeat(500)
    model.loss(frames, lengths, generator(0))
    assert model.mean_signal == 0 and model.deviation == 1
    model.train()
    for seed in range(200):
        model.loss(frames, lengths, generator(seed))
    exact = float(bound(model, FRAMES).detach() / 3)
    assert float(model.mean_signal) == pytest.approx(exact, abs=0.05)
    again = TSBN(2, 2, 4).double()
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.deviation, model.deviation) and model.deviation != 1


@pytest.mark.parametrize("visible", ["binary", "continuous"])
def test_bounds_lie_under_the_likelihood_and_converge_to_it(visible):
    model = make(visible, std=1.0 if visible == "binary" else 0.5)
    copies = 4000
    frames, lengths = FRAMES.repeat(copies, 1, 1), THREE.repeat(copies)
    chosen = torch.ones(copies, 3, dtype=torch.bool)
    truth, elbo = log_likelihood(model, FRAMES), bound(model, FRAMES).detach()
    assert elbo < truth - 0.05
    scores = model.scores(frames, lengths, chosen, None, generator(0)).log_prob.view(copies, 3)
    total = scores.sum(1)
    error = total.std() / math.sqrt(copies)
    assert abs(total.mean() - elbo) < 5 * error
    loss = model.loss(frames, lengths, generator(0)).detach()
    assert float(loss) == pytest.approx(-float(total.mean()) / 3)

    def found(paths, method, copies=copies):
        random = generator(1)
        walk = model.walk(frames[:copies], lengths[:copies], paths, random)
        return particles.log_likelihood(walk, lengths[:copies], method, random)

    one = found(1, "paths")
    assert abs(one.mean() - elbo) < 5 * one.std() / math.sqrt(copies)
    for method in particles.METHODS:
        ratio = (found(4, method) - truth).exp()
        assert abs(ratio.mean() - 1) < 5 * ratio.std() / math.sqrt(copies)
        spread = (one - truth).exp().std()
        assert (found(4000, method, 4) - truth).abs().max() < 5 * spread / math.sqrt(4000)


@pytest.mark.parametrize("visible", ["binary", "continuous"])
def test_padding_and_later_frames_change_nothing(visible):
    model = make(visible)
    frames, lengths = FRAMES.repeat(3, 1, 1), torch.tensor([3, 1, 2])
    padded = torch.cat([frames, torch.ones(3, 4, 2).double()], 1)
    assert torch.allclose(*(model.loss(f, lengths, generator(0)) for f in (frames, padded)))
    features = [model.features(f, generator(0), lengths)[:, :3] for f in (frames, padded)]
    assert torch.equal(*features)
    changed = frames.clone()
    changed[:, 1:] = 1 - changed[:, 1:]
    before, after = (model.predict(f, generator(0), samples=50) for f in (frames, changed))
    assert torch.equal(before[:, :, :2], after[:, :, :2])
    drawn = model.generate(2, 3, frames, generator(0))
    assert drawn.shape == (3, 5, 2) and torch.equal(drawn[:, :3], frames)
    assert model.reconstruct(frames, generator(0), samples=2).shape == (2, 3, 3, 2)


def test_generated_sequences_follow_the_likelihood():
    model, count = make(std=0.7), 20_000
    drawn = model.generate(3, count, generator=generator(0)).view(count, 6)
    p = torch.stack([log_likelihood(model, path[None]) for path in PATHS]).exp()
    assert float(p.sum()) == pytest.approx(1.0)
    place = (drawn @ torch.tensor([32.0, 16.0, 8.0, 4.0, 2.0, 1.0]).double()).long()
    seen = torch.bincount(place, minlength=64) / count
    assert ((seen - p).abs() < 5 * (p * (1 - p) / count).sqrt() + 1e-4).all()


def test_training_comes_near_the_truth():
    """Frames that repeat the one before: 2 bits a sequence, whatever its length."""
    torch.manual_seed(0)
    first = torch.bernoulli(torch.full((64, 1, 2), 0.5), generator=generator(0))
    frames, lengths = first.repeat(1, 6, 1), torch.full((64,), 6)
    model = TSBN(2, 3, 8)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    losses = []
    for seed in range(250):
        loss = model.loss(frames, lengths, generator(seed))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[0] > 1.2
    assert sum(losses[-20:]) / 20 < 2 * 2 * math.log(2) / 6
