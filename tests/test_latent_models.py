"""SRNN, STORN and Z-forcing against their formulas written out, and integrals over latents."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from densities import generator
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import leaky_relu, softplus

from cgrnn.models.latent import GaussianHead, LatentModel
from cgrnn.models.srnn import SRNN, Backward
from cgrnn.models.storn import STORN
from cgrnn.models.z_forcing import ZForcing
from samplers.particles import log_likelihood

SRNN_SIZES = {"recurrent_dim": 4, "mlp_dim": 5}
VARIANTS = {
    f"srnn-{how[0]}{'+res' * residual}": (
        SRNN,
        SRNN_SIZES | {"inference": how, "residual": residual, "clip": 1.5},
    )
    for how, residual in itertools.product(("smoothing", "filtering"), (True, False))
}
VARIANTS["storn"] = (STORN, {"recurrent_dim": 4})
VARIANTS["z-forcing"] = (ZForcing, {"recurrent_dim": 4, "feature_dim": 5, "auxiliary": 0.1})
SMOOTHING = {"srnn-s", "srnn-s+res", "z-forcing"}
every_variant = pytest.mark.parametrize("variant", VARIANTS)
every_kind = pytest.mark.parametrize("visible", ["binary", "continuous"])
LENGTHS = torch.tensor([5, 3, 1, 4])


def make(variant, visible="binary", visible_dim=3, latent_dim=4, seed=0):
    """Four latents and batches of four: noise in sixteens, which torch draws alike in any order."""
    torch.manual_seed(seed)
    kind, options = VARIANTS[variant]
    model = kind(visible_dim=visible_dim, latent_dim=latent_dim, visible=visible, **options)
    model = model.double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def frames_of(visible, batch=4, frames=5, visible_dim=3, seed=0):
    noise = torch.randn(batch, frames, visible_dim, generator=generator(seed)).double()
    return (noise > 0).double() if visible == "binary" else noise


def errors_from(draws, expected):
    """How many standard errors the mean of draws is off."""
    return float((draws.mean() - expected).abs() / (draws.std() / math.sqrt(len(draws))))


# --- The generative models, written out for paths z `(paths, N)` of one latent a frame.


def gru(cell, x, h):
    suffix = "_l0" if hasattr(cell, "weight_ih_l0") else ""
    weights = (getattr(cell, f"{name}{suffix}") for name in ("weight_ih", "weight_hh"))
    biases = (getattr(cell, f"{name}{suffix}") for name in ("bias_ih", "bias_hh"))
    of_x, of_h = (u @ w.t() + b for u, w, b in zip((x, h), weights, biases, strict=True))
    (r, z, n), (r_h, z_h, n_h) = of_x.chunk(3, -1), of_h.chunk(3, -1)
    update = torch.sigmoid(z + z_h)
    return (1 - update) * torch.tanh(n + torch.sigmoid(r + r_h) * n_h) + update * h


def normal(head, features):
    mean, raw = (features @ head.linear.weight.t() + head.linear.bias).chunk(2, -1)
    return Normal(mean, softplus(raw) + 1e-3)


def srnn_joint(model, v, z):
    def units(x):
        return leaky_relu(x, 1 / 3).clamp(-1.5, 1.5)

    first, second = model.of_frame
    d, previous, total = model.transition.initial[0, 0], model.initial.expand(len(z), 1), 0.0
    for frame, latent in zip(v, z.unsqueeze(-1).unbind(1), strict=True):
        hidden = units(model.d_to_prior(d) + previous @ model.z_to_prior.weight.t())
        context = units(model.d_to_context(d) + latent @ model.z_to_context.weight.t())
        total = total + normal(model.prior_head, hidden).log_prob(latent).sum(-1)
        total = total + model.layer(context).log_prob(frame.expand(len(z), -1))
        d, previous = gru(model.transition.rnn, units(second(units(first(frame)))), d), latent
    return total


def storn_joint(model, v, z):
    h, total = model.transition.initial[0, 0].expand(len(z), -1), 0.0
    for n, latent in enumerate(z.unsqueeze(-1).unbind(1)):
        before = (v[n - 1] if n else torch.zeros_like(v[0])).expand(len(z), -1)
        h = gru(model.transition.rnn, torch.cat([before, latent], -1), h)
        total = total + Normal(0.0, 1.0).log_prob(latent).sum(-1)
        total = total + model.layer(h).log_prob(v[n].expand(len(z), -1))
    return total


def z_forcing_joint(model, v, z):
    h, total = model.initial.expand(len(z), -1), 0.0
    for frame, latent in zip(v, z.unsqueeze(-1).unbind(1), strict=True):
        (layer, _), head = model.to_prior
        total = total + normal(head, layer(h).clamp_min(0)).log_prob(latent).sum(-1)
        context = model.to_context[0](torch.cat([latent, h], -1)).clamp_min(0)
        total = total + model.layer(context).log_prob(frame.expand(len(z), -1))
        own = model.of_frame[0](frame).clamp_min(0).expand(len(z), -1)
        h = gru(model.cell, torch.cat([own, latent], -1), h)
    return total


JOINTS = {SRNN: srnn_joint, STORN: storn_joint, ZForcing: z_forcing_joint}


@torch.no_grad()
def exact_log_likelihood(model, v):
    """`log ∫ p(v, z) dz` of frames `(N, V)`, by the trapezoidal rule.

    It is exact to many digits where the grid is finer than the deviations, and ends in nothing.
    """
    line = torch.linspace(-9, 9, 49, dtype=torch.float64)
    paths = torch.cartesian_prod(*[line] * len(v)).view(-1, len(v))
    joint = JOINTS[type(model)](model, v, paths)
    edge = (paths.abs() == 9).any(-1)
    assert joint[edge].max() < joint.max() - 18  # nothing is lost beyond the grid
    return joint.logsumexp(0) + len(v) * math.log(0.375)


def make_integrable(variant, visible, seed=0):
    """One latent a frame, all deviations about one, the posterior's wider than the prior's: so
    the grid is fine enough, and the weights have finite variance."""
    model = make(variant, visible, visible_dim=2, latent_dim=1, seed=seed)
    with torch.no_grad():
        for name, part in model.named_modules():
            if isinstance(part, GaussianHead) and "backward" not in name:
                part.linear.weight.mul_(torch.tensor([[0.3], [0.1]]))
                part.linear.bias[0] *= 0.3
                part.linear.bias[1] = 1.2 if "posterior" in name else 0.5
        if visible == "continuous":
            model.layer.raw_deviation.zero_()
            model.layer.context_to_deviation.weight.mul_(0.1)
    return model


@every_kind
@every_variant
def test_weighted_paths_average_to_the_integral(variant, visible):
    model = make_integrable(variant, visible)
    v = frames_of(visible, 1, 3, 2)[0]
    exact, paths = exact_log_likelihood(model, v), 20_000
    walk = model.walk(v.unsqueeze(0), torch.tensor([3]), paths, generator(1))
    with torch.no_grad():
        log_weight = sum(walk.step() for _ in range(3)).squeeze(1)
    weight = (log_weight - exact).exp()
    assert errors_from(weight, 1.0) < 5
    assert weight.std() / math.sqrt(paths) < 0.03  # it would see a likelihood wrong by 0.15 nat
    assert log_weight.mean() < exact - 5 * log_weight.std() / math.sqrt(paths)  # a bound, not tight


@every_variant
def test_a_filter_of_few_paths_averages_to_the_integral(variant):
    model = make_integrable(variant, "binary", seed=1)
    v = frames_of("binary", 1, 3, 2)
    copies = v.expand(4000, 3, 2)
    lengths = torch.full((4000,), 3)
    found = log_likelihood(
        model.walk(copies, lengths, 4, generator(0)), lengths, "filter", generator(1)
    )
    assert errors_from((found - exact_log_likelihood(model, v[0])).exp(), 1.0) < 5


@every_variant
def test_generated_frames_follow_the_integral(variant):
    model, count = make_integrable(variant, "binary"), 20_000
    drawn = model.generate(2, count, generator=generator(0)).view(count, 4)
    sequences = torch.tensor(list(itertools.product((0.0, 1.0), repeat=4))).double()
    p = torch.stack([exact_log_likelihood(model, v) for v in sequences.view(16, 2, 2)]).exp()
    assert float(p.sum()) == pytest.approx(1.0, abs=1e-8)
    place = (drawn @ torch.tensor([8.0, 4.0, 2.0, 1.0]).double()).long()
    seen = torch.bincount(place, minlength=16) / count
    assert ((seen - p).abs() < 5 * (p * (1 - p) / count).sqrt() + 1e-9).all()


@every_variant
def test_predictions_follow_the_integral(variant):
    """`p(v_2|v_1)` from the exact likelihoods of pairs, by many particles."""
    model = make_integrable(variant, "binary", seed=2)
    first = torch.tensor([1.0, 0.0]).double()
    pairs = [torch.stack([first, torch.tensor(v).double()]) for v in ((1, 0), (0, 1), (1, 1))]
    alone = exact_log_likelihood(model, first.unsqueeze(0))
    p = [float((exact_log_likelihood(model, pair) - alone).exp()) for pair in pairs]
    copies = torch.stack([first, first]).expand(20, 2, 2)
    drawn = model.predict(copies, generator(0), samples=2000)[:, :, 1].mean(0)
    assert errors_from(drawn[:, 0], p[0] + p[2]) < 5
    assert errors_from(drawn[:, 1], p[1] + p[2]) < 5


@every_kind
@every_variant
def test_one_path_estimates_average_to_the_loss(variant, visible):
    """Divergences in closed form against differences of log-densities at the draws."""
    model, copies, groups = make(variant, visible), 100, 40
    frames = frames_of(visible).repeat(copies, 1, 1)
    lengths = LENGTHS.repeat(copies)
    losses, totals = [], []
    for seed in range(groups):
        with torch.no_grad():
            loss = model.loss(frames, lengths, generator(seed))
        losses.append(loss - bias_of(model))
        walk = model.walk(frames, lengths, 1, generator(1000 + seed))
        totals.append(log_likelihood(walk, lengths).sum() / lengths.sum())
    differences = torch.stack(losses) + torch.stack(totals)
    assert differences.std() > 0
    assert errors_from(differences, 0.0) < 5


def bias_of(model):
    """What the last loss held besides the bound."""
    return getattr(model, "auxiliary", 0.0) * model.monitored.get("auxiliary", 0.0)


@torch.no_grad()
def plain_path(model, frames, lengths, seed):
    """The bound's own path, one frame at a time: `(z, prior, posterior, state)` of every frame."""
    past, _ = model.past(frames, lengths)
    state, noise, found = model.start(frames.shape[:1]), generator(seed), []
    for before, seen, own in zip(*(part.unbind(1) for part in past), strict=True):
        prior = model.prior(state, before)
        posterior = model.posterior(state, before, seen, prior)
        z = posterior.sample(noise)
        found.append((z, Normal(*prior), Normal(*posterior), state))
        state = model.advance(model.emit(state, z, before)[1], z, own)
    return found


@every_kind
@every_variant
def test_bounds_are_those_of_the_plain_loop(variant, visible):
    model, frames = make(variant, visible), frames_of(visible)
    with torch.no_grad():
        contexts, divergences = model.bound(frames, LENGTHS, generator(3))
        plain = LatentModel.bound(model, frames, LENGTHS, generator(3))
    assert torch.allclose(contexts, plain[0], atol=1e-10, rtol=0)
    assert torch.allclose(divergences, plain[1], atol=1e-10, rtol=0)
    path = plain_path(model, frames, LENGTHS, 3)
    by_torch = torch.stack([kl_divergence(q, p).sum(-1) for _, p, q, _ in path], 1)
    assert torch.allclose(divergences, by_torch, atol=1e-10, rtol=0)
    assert divergences.min() > 0

    model.kl_weight = 0.3
    loss = model.loss(frames, LENGTHS, generator(3)) - bias_of(model)
    inside = torch.arange(5) < LENGTHS[:, None]
    fit = model.layer(contexts[inside]).log_prob(frames[inside])
    assert torch.allclose(loss, (0.3 * divergences[inside] - fit).mean(), atol=1e-10)


def changed_at(frames, n):
    changed = frames.clone()
    changed[:, n] = 1 - changed[:, n]
    return changed


@every_variant
def test_what_the_posterior_sees(variant):
    model, frames = make(variant), frames_of("binary")
    for online in (False, True):
        past, _ = model.past(frames, online=online)
        after, _ = model.past(changed_at(frames, 3), online=online)
        differs = (past.seen != after.seen).any(-1).all(0)
        assert differs[3]
        assert differs[:3].all() == (variant in SMOOTHING and not online)
        assert differs[:3].any() == differs[:3].all()
        assert torch.equal(past.before[:, :4], after.before[:, :4])
    for n in range(5):
        ended, _ = model.past(frames[:, : n + 1], online=False)
        assert torch.allclose(ended.seen[:, -1], past.seen[:, n], atol=1e-12)


@every_variant
def test_frames_one_at_a_time_are_the_whole(variant):
    model, frames = make(variant), frames_of("binary")
    whole, memory = model.past(frames, online=True)
    parts, carried = [], None
    for frame in frames.split(1, 1):
        past, carried = model.past(frame, None, carried, online=True)
        parts.append(past)
    for part, fields in zip(whole, zip(*parts, strict=True), strict=True):
        assert torch.allclose(part, torch.cat(fields, 1), atol=1e-12)
    for ours, theirs in zip(memory, carried, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-12)


def test_backward_recurrence_is_its_formula():
    torch.manual_seed(0)
    model, x = Backward(3, 4).double(), frames_of("continuous")
    torch.nn.init.normal_(model.initial)
    b = model(x, LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        state = model.initial
        for n in reversed(range(length)):
            state = gru(model.rnn, x[row, n], state)
            assert torch.allclose(b[row, n], state, atol=1e-12)
    assert torch.equal(model(x), model(x, torch.full((4,), 5)))


@every_kind
@every_variant
def test_padding_is_never_seen(variant, visible):
    model = make(variant, visible)
    frames = frames_of(visible)
    other = torch.cat([frames, torch.ones(4, 4, 3).double()], 1)
    inside = torch.arange(5) < LENGTHS[:, None]
    other[:, :5][~inside] = 1 - frames[~inside]
    loss = model.loss(frames, LENGTHS, generator(0))
    assert torch.allclose(loss, model.loss(other, LENGTHS, generator(0)), atol=1e-12)
    features = model.features(frames, generator(0), LENGTHS)
    padded = model.features(other, generator(0), LENGTHS)[:, :5]
    assert torch.allclose(features[inside], padded[inside], atol=1e-12)
    found = [
        log_likelihood(model.walk(some, LENGTHS, 4, generator(0)), LENGTHS, "paths")
        for some in (frames, other)
    ]
    assert torch.allclose(*found, atol=1e-12)
    unaware = model.loss(other, torch.full((4,), 9), generator(0))
    assert not torch.allclose(loss, unaware, atol=1e-3)


@every_kind
@every_variant
def test_prediction_sees_the_past_alone(variant, visible):
    model, frames = make(variant, visible), frames_of(visible)
    before = model.predict(frames, generator(3), samples=64)
    after = model.predict(changed_at(frames, 2), generator(3), samples=64)
    assert torch.equal(before[:, :, :3], after[:, :, :3])
    assert not torch.equal(before[:, :, 3], after[:, :, 3])


@pytest.mark.parametrize("inference", ["smoothing", "filtering"])
def test_residual_posterior_corrects_the_prior(inference):
    model, frames = make(f"srnn-{inference[0]}+res"), frames_of("binary")
    past, _ = model.past(frames)
    state = (torch.randn(4, 4, generator=generator(0)).double(),)
    prior = model.prior(state, past.before[:, 2])
    corrected = model.posterior(state, past.before[:, 2], past.seen[:, 2], prior)
    model.residual = False
    plain = model.posterior(state, past.before[:, 2], past.seen[:, 2], prior)
    assert torch.allclose(corrected.mean, prior.mean + plain.mean, atol=1e-12)
    assert torch.equal(corrected.deviation, plain.deviation)


def test_srnn_refuses_another_inference():
    with pytest.raises(ValueError, match="inference: expected one of smoothing, filtering"):
        SRNN(inference="both")


@every_kind
def test_auxiliary_cost_is_its_formula(visible):
    model, frames = make("z-forcing", visible), frames_of(visible)
    model.loss(frames, LENGTHS, generator(5))
    b = model.past(frames, LENGTHS)[0].seen
    total = 0.0
    for n, (z, _, _, (h,)) in enumerate(plain_path(model, frames, LENGTHS, 5)):
        (layer, _), head = model.to_backward
        foreseen = normal(head, layer(torch.cat([z, h], -1)).clamp_min(0)).log_prob(b[:, n])
        total = total - (foreseen.sum(-1) * (n < LENGTHS)).sum()
        if n:
            recalled = model.backward_layer(b[:, n]).log_prob(frames[:, n - 1])
            total = total - (recalled * (n < LENGTHS)).sum()
    assert torch.allclose(model.monitored["auxiliary"], total / LENGTHS.sum(), atol=1e-10)


def test_auxiliary_cost_does_not_make_the_backward_states_easy_to_predict():
    """Where latents and recalled frames say nothing of `b`, no gradient reaches it."""
    model, frames = make("z-forcing"), frames_of("binary")
    with torch.no_grad():
        model.to_posterior[0][0].weight[:, 4:] = 0.0
        model.backward_layer.context_to_visible.weight.zero_()
    model.loss(frames, LENGTHS, generator(0)).backward()
    assert all(parameter.grad.abs().max() == 0 for parameter in model.backward_rnn.parameters())
    assert model.to_backward[0][0].weight.grad.abs().max() > 0


@every_kind
@every_variant
def test_training_reaches_every_parameter_and_lowers_the_loss(variant, visible):
    model = make(variant, visible)
    phase = torch.arange(4)[:, None] + torch.arange(12)
    frames = torch.nn.functional.one_hot(phase % 3, 3).double()
    lengths = torch.tensor([12, 9, 12, 1])
    optimizer, noise, losses = torch.optim.Adam(model.parameters(), 1e-2), generator(0), []
    for _ in range(60):
        loss = model.loss(frames, lengths, noise)
        optimizer.zero_grad()
        loss.backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-10:]) < sum(losses[:10]) - 5.0
