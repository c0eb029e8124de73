"""The linear-Gaussian model against the joint Gaussian of all its frames."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from densities import generator
from scipy import stats

from cgrnn.models.lgssm import LGSSM, LGSSMWalk

LENGTHS = torch.tensor([4, 2, 3])


def make(visible=3, latent=2, seed=0):
    model = LGSSM(visible, latent).double()
    random = generator(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.6, generator=random)
    return model


def data(frames=4, visible=3, seed=1):
    return torch.randn(3, frames, visible, generator=generator(seed)).double()


def joint(model, frames):
    """Mean and covariance of all states, then of all frames, end to end; and those across."""
    a, c = model.transition, model.emission
    process, noise = model.process_deviation**2, model.visible_deviation**2
    means, blocks = [model.initial_mean], [[(model.initial_deviation**2).diag()]]
    for _ in range(1, frames):
        means.append(a @ means[-1])
        row = [a @ before for before in blocks[-1]]
        blocks.append([*row, row[-1] @ a.t() + process.diag()])
    states = torch.cat(
        [
            torch.cat([blocks[i][j] if i >= j else blocks[j][i].t() for j in range(frames)], 1)
            for i in range(frames)
        ]
    )
    emit = torch.block_diag(*[c] * frames)
    across = states @ emit.t()
    covariance = emit @ across + noise.repeat(frames).diag()
    mean = torch.cat(means)
    return mean, states, emit @ mean + model.visible_mean.repeat(frames), covariance, across


def dense_log_prob(model, frames):
    _, _, mean, covariance, _ = joint(model, frames.shape[1])
    return torch.distributions.MultivariateNormal(mean, covariance).log_prob(frames.flatten(1))


def test_likelihood_and_gradient_are_those_of_the_joint_gaussian():
    model, frames = make(), data()
    dense = dense_log_prob(model, frames)
    _, _, mean, covariance, _ = joint(model, 4)
    by_scipy = stats.multivariate_normal(mean.detach().numpy(), covariance.detach().numpy())
    assert np.allclose(dense.detach(), by_scipy.logpdf(frames.flatten(1).numpy()))
    found = model.filtered(frames).log_prob.sum(1)
    assert torch.allclose(found, dense)
    parameters = list(model.parameters())
    ours, theirs = (torch.autograd.grad(total.sum(), parameters) for total in (found, dense))
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other)
        assert one.abs().sum() > 0


def test_each_frame_is_scored_given_those_before():
    model, frames = make(), data()
    per_frame = model.filtered(frames).log_prob
    dense = [dense_log_prob(model, frames[:, :n]) for n in range(1, 5)]
    assert torch.allclose(per_frame.cumsum(1), torch.stack(dense, 1))
    chosen = model.scored(LENGTHS, 4)
    scores = model.scores(frames, LENGTHS, chosen, None).log_prob
    assert torch.allclose(scores, per_frame[chosen])
    assert torch.allclose(model.loss(frames, LENGTHS), -scores.mean())


def test_loss_learns_nothing_from_padding_and_tells_given_frames_without_a_score():
    model, frames = make(), data()
    padded = torch.cat([frames, torch.ones(3, 2, 3).double()], 1)
    padded[~(torch.arange(6) < LENGTHS[:, None])] = 7.0
    assert torch.allclose(model.loss(frames, LENGTHS), model.loss(padded, LENGTHS))
    model.given_frames = 2
    assert len(model.scores(frames, LENGTHS, model.scored(LENGTHS, 4), None).log_prob) == 3
    walk = LGSSMWalk(model, frames, 4, generator(0))
    assert not walk.step().any() and not walk.step().any() and walk.step().all()


@pytest.mark.parametrize("scale", [-1.0, -5.0])
def test_single_precision_holds_at_full_size_and_small_noise(scale):
    """150 units, 50 latents: the joint covariance of three frames, inverted in double precision."""
    torch.manual_seed(0)
    model = LGSSM(150, 50)
    with torch.no_grad():
        model.raw_visible.fill_(scale)
        frames = model.generate(3, 4, generator=generator(0))
    single = model.filtered(frames).log_prob.sum(1).double()
    dense = dense_log_prob(model.double(), frames.double())
    # 450 squares about one in size, each of a difference of numbers up to |v| / R^½ ulps apart.
    rounding = 450 * float(frames.abs().max() / model.visible_deviation.detach().min()) * 2**-23
    assert torch.allclose(single, dense, rtol=0, atol=max(rounding, 0.01))


def conditional(model, frames, of, given):
    """Mean and covariance of the state at frame `of` given so many first frames, by inversion."""
    mean_z, cov_z, mean, covariance, across = (x.detach() for x in joint(model, frames.shape[1]))
    z, v = model.latent_dim, model.visible_dim * given
    part = slice(of * z, (of + 1) * z)
    gain = across[part, :v] @ torch.linalg.inv(covariance[:v, :v])
    told = frames.flatten(1)[:, :v] - mean[:v]
    return mean_z[part] + told @ gain.t(), cov_z[part, part] - gain @ across[part, :v].t()


@pytest.mark.parametrize("n", [0, 1, 3])
def test_states_are_the_conditionals_of_the_joint_gaussian(n):
    model, frames = make(), data()
    found = model.filtered(frames)
    for mean, root, given in (
        (found.mean_before, found.root_before, n),
        (found.mean, found.root, n + 1),
    ):
        expected, covariance = conditional(model, frames, n, given)
        assert torch.allclose(mean[:, n], expected)
        assert torch.allclose(root[n] @ root[n].t(), covariance)
    assert torch.allclose(model.features(frames), found.mean)


def assert_moments(drawn, mean, covariance):
    """Draws `(count, batch, V)`; within 5 standard errors, of Gaussian second moments too."""
    count = len(drawn)
    error = (covariance.diagonal() / count).sqrt()
    assert ((drawn.mean(0) - mean).abs() < 5 * error).all()
    centred = drawn - mean
    seen = torch.einsum("sbi,sbj->bij", centred, centred) / count
    variances = covariance.diagonal()
    fourth = (variances[:, None] * variances + covariance**2) / count
    assert ((seen - covariance).abs() < 5 * fourth.sqrt()).all()


@pytest.mark.parametrize(("method", "more"), [("predict", 0), ("reconstruct", 1)])
def test_drawn_frames_have_the_moments_of_the_conditional(method, more):
    model, frames = make(), data()
    drawn = getattr(model, method)(frames, generator(2), samples=20_000)
    c, noise = model.emission.detach(), (model.visible_deviation**2).detach()
    for n in (0, 2):
        mean, covariance = conditional(model, frames, n, n + more)
        expected = mean @ c.t() + model.visible_mean.detach()
        assert_moments(drawn[:, :, n], expected, c @ covariance @ c.t() + noise.diag())


def test_generated_frames_have_the_moments_of_the_joint_and_go_on_from_a_prime():
    model, frames = make(), data()
    _, _, mean, covariance, _ = (x.detach() for x in joint(model, 4))
    drawn = model.generate(4, 20_000, generator=generator(3)).flatten(1).unsqueeze(1)
    assert_moments(drawn, mean, covariance)
    prime = frames[0, :2]
    later = model.generate(2, 20_000, prime, generator(4))
    assert torch.equal(later[:, :2], prime.expand(20_000, -1, -1))
    gain = covariance[6:, :6] @ torch.linalg.inv(covariance[:6, :6])
    expected = mean[6:] + gain @ (prime.flatten() - mean[:6])
    left = covariance[6:, 6:] - gain @ covariance[:6, 6:]
    assert_moments(later[:, 2:].flatten(1).unsqueeze(1), expected, left)


def test_prediction_never_sees_the_frame_it_predicts():
    model, frames = make(), data()
    changed = frames.clone()
    changed[:, 2:] += 1
    before, after = (model.predict(f, generator(0), samples=5) for f in (frames, changed))
    assert torch.equal(before[:, :, :3], after[:, :, :3])
    assert not torch.allclose(before[:, :, 3], after[:, :, 3])


def test_training_finds_a_better_model_than_it_began_with_and_no_better_than_the_truth():
    truth = make(visible=4, seed=5)
    frames = truth.generate(20, 100, generator=generator(0))
    lengths = torch.full((100,), 20)
    torch.manual_seed(0)
    model = LGSSM(4, 2).double()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(100):
        loss = model.loss(frames, lengths)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    fresh = truth.generate(20, 400, generator=generator(1))
    lengths = torch.full((400,), 20)
    best, found, start = (
        float(m.loss(fresh, lengths).detach()) for m in (truth, model, LGSSM(4, 2).double())
    )
    assert best - 0.01 < found < best + 0.2 * (start - best)


def test_a_copy_by_its_state_is_the_same_model_and_binary_frames_are_refused():
    model, frames = make(), data()
    copy = LGSSM(3, 2).double()
    copy.load_state_dict(model.state_dict())
    assert torch.equal(model.filtered(frames).log_prob, copy.filtered(frames).log_prob)
    with pytest.raises(ValueError, match="visible: expected 'continuous'"):
        LGSSM(visible="binary")
    with pytest.raises(ValueError, match="proposal: expected 'prior' or 'optimal'"):
        LGSSMWalk(model, frames, 3, proposal="best")
