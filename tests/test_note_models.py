"""The note-sequence baselines: probabilities, the window, and what they can learn."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from densities import errors_off, generator
from scipy import stats

from cgrnn.models.notes import (
    MIN_DEVIATION,
    NOT_BEGUN,
    CategoricalDensity,
    NoteRNN,
    RoundedGaussianDensity,
)
from samplers import particles

WINDOW = 3
CLASSES = 5
VARIANTS = [
    *({"target": t, "cell": c} for t in ("classes", "integers") for c in ("gru", "lstm", "tanh")),
    {"target": "classes", "layers": 4},
]
every_variant = pytest.mark.parametrize("options", VARIANTS, ids=str)
every_target = pytest.mark.parametrize("target", ["classes", "integers"])


def model(seed=0, **options):
    sizes = {"classes": CLASSES, "window": WINDOW, "recurrent_dim": 4}
    made = NoteRNN(**(sizes | options)).double().eval()
    random = generator(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(std=0.7, generator=random)
    return made


def notes(batch=3, frames=8, classes=CLASSES, seed=0):
    drawn = torch.randint(classes, (batch, frames, 1), generator=generator(seed))
    return drawn.double()


LENGTHS = torch.tensor([8, 3, 5])


def every_frame(made, frames):
    chosen = torch.ones(frames.shape[:2], dtype=torch.bool)
    lengths = torch.full((len(frames),), frames.shape[1])
    return made.scores(frames, lengths, chosen, None).log_prob.view(frames.shape[:2])


def train(made, frames, steps, rate=1e-2):
    lengths = torch.full((len(frames),), frames.shape[1])
    optimizer = torch.optim.Adam(made.parameters(), rate)
    losses = []
    for _ in range(steps):
        losses.append(made.loss(frames, lengths))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    return [loss.item() for loss in losses]


# The densities over classes.


@pytest.mark.parametrize("deviation", [0.05, 0.3, 1.0, 40.0])
@pytest.mark.parametrize("mean", [-300.0, -0.3, 1.5, 3.9, 50.0])
def test_rounded_gaussian_is_the_gaussian_of_each_interval(mean, deviation):
    density = RoundedGaussianDensity(
        torch.tensor([mean], dtype=torch.float64),
        torch.tensor(math.log(deviation)).double(),
        CLASSES,
    )
    found = density.log_prob(torch.arange(CLASSES).double()[:, None])
    edges = np.array([-np.inf, *(np.arange(1, CLASSES) - 0.5), np.inf])
    gaussian = stats.norm(mean, deviation)
    lower = gaussian.cdf(edges[1:]) - gaussian.cdf(edges[:-1])
    upper = gaussian.sf(edges[:-1]) - gaussian.sf(edges[1:])
    p = np.where(edges[:-1] < mean, lower, upper)
    assert found.logsumexp(0) == pytest.approx(0.0, abs=1e-12)
    assert found.isfinite().all()
    sure = p > 1e-300
    assert np.allclose(found.numpy()[sure], np.log(p[sure]), rtol=1e-7, atol=1e-9)


def test_rounded_gaussian_keeps_its_digits_in_single_precision():
    """Values and gradients, however far the note, beside those in double."""

    def all_of(mean, deviation, dtype):
        m = torch.tensor([mean], dtype=dtype, requires_grad=True)
        log_deviation = torch.tensor(math.log(deviation), dtype=dtype, requires_grad=True)
        v = torch.tensor([[0.0], [1.0], [64.0], [126.0], [127.0]], dtype=dtype)
        log_prob = RoundedGaussianDensity(m, log_deviation, 128).log_prob(v)
        gradients = [
            torch.autograd.grad(x, (m, log_deviation), retain_graph=True) for x in log_prob
        ]
        return [log_prob, *map(torch.stack, zip(*gradients, strict=True))]

    for mean, deviation in itertools.product((-1e4, 0.0, 2.0, 1e4), (MIN_DEVIATION, 1.0, 1e3)):
        single, double = (all_of(mean, deviation, dtype) for dtype in (torch.float, torch.double))
        for ours, wanted in zip(single, double, strict=True):
            assert torch.allclose(ours.double(), wanted, rtol=2e-3, atol=1e-4), (mean, deviation)


def test_gradient_of_the_rounded_gaussian_is_its_slope():
    def log_prob(m, log_deviation):
        v = torch.tensor([[0.0], [1.0], [3.0], [4.0]]).double()
        return RoundedGaussianDensity(m, log_deviation, CLASSES).log_prob(v)

    m = torch.tensor([1.3], dtype=torch.float64, requires_grad=True)
    log_deviation = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(log_prob, (m, log_deviation))


@pytest.mark.parametrize(
    "density",
    [
        CategoricalDensity(torch.tensor([[0.0, 2.0, -1.0, 0.5, 1.0], [1.0, 0.0, 0.0, 0.0, -3.0]])),
        RoundedGaussianDensity(torch.tensor([[1.8], [3.1]]), torch.tensor(-0.3), CLASSES),
    ],
    ids=["categorical", "rounded"],
)
def test_draws_follow_the_probabilities(density):
    drawn = density.sample((20_000,), generator(0))
    assert drawn.shape == (20_000, 2, 1)
    classes = torch.arange(float(CLASSES))
    p = density.log_prob(classes[:, None, None].expand(-1, 2, 1)).exp()  # (classes, 2)
    assert torch.allclose(p.sum(0), torch.ones(2))
    hits = (drawn == classes).double().transpose(1, 2)
    assert errors_off(hits, p) < 5
    assert torch.equal(density.choice.squeeze(-1), p.argmax(0).float())


# The model.


@every_variant
def test_probabilities_of_all_pieces_sum_to_one(options):
    """Three classes and four notes, more than a window: 81 pieces, all that can happen."""
    made = model(classes=3, window=2, **options)
    pieces = torch.tensor(list(itertools.product((0.0, 1.0, 2.0), repeat=4))).double()[..., None]
    log_prob = every_frame(made, pieces)
    assert log_prob.sum(1).logsumexp(0) == pytest.approx(0.0, abs=1e-10)
    assert log_prob.std() > 0.01


@every_variant
def test_only_the_window_counts(options):
    """A note changes the probabilities of the next `window` notes and of no other, exactly."""
    made, frames = model(**options), notes(frames=12)
    changed = frames.clone()
    changed[:, 4] = (changed[:, 4] + 1) % CLASSES
    contexts, others = (made.summaries(made.windows(x)) for x in (frames, changed))
    moved = ((contexts - others) != 0).any(-1)
    assert moved.shape == (3, 13)
    assert not moved[:, :5].any() and not moved[:, 5 + WINDOW :].any()
    assert moved[:, 5 : 5 + WINDOW].all()
    same = every_frame(made, frames) == every_frame(made, changed)
    assert same[:, :4].all() and same[:, 5 + WINDOW :].all()
    drawn, again = (made.predict(x, generator(3), samples=50) for x in (frames, changed))
    assert drawn.shape == (50, 3, 12, 1)
    assert torch.equal(drawn[:, :, :5], again[:, :, :5])
    assert torch.equal(drawn[:, :, 5 + WINDOW :], again[:, :, 5 + WINDOW :])


def test_the_papers_window_is_thirty_notes():
    made, frames = NoteRNN(classes=9, recurrent_dim=4).double(), notes(1, 70, 9)
    changed = frames.clone()
    changed[:, 20] = (changed[:, 20] + 1) % 9
    same = every_frame(made, frames) == every_frame(made, changed)
    assert same[0, :20].all() and same[0, 51:].all()
    assert not same[0, 20] and not same[0, 50]


@every_target
def test_windows_and_contexts_are_those_of_a_plain_loop(target):
    made, frames = model(target=target, cell="tanh", classes=7), notes(1, 5, 7)
    rnn, piece = made.transition.rnn, frames[0, :, 0].long().tolist()
    for n in range(6):
        window = ([NOT_BEGUN] * WINDOW + piece[:n])[-WINDOW:]
        assert made.windows(frames)[0, n].tolist() == window
        u = made.transition.initial[0, 0]
        for note in window:
            x = made.not_begun
            if note != NOT_BEGUN and target == "classes":
                x = made.embedding.weight[note]
            elif note != NOT_BEGUN:
                x = torch.tensor([note / 6], dtype=torch.float64)
            u = rnn.weight_ih_l0 @ x + rnn.bias_ih_l0 + rnn.weight_hh_l0 @ u + rnn.bias_hh_l0
            u = u.tanh()
        assert torch.allclose(made.summaries(made.windows(frames))[0, n], u, rtol=0, atol=1e-12)


@every_variant
def test_every_parameter_gets_a_gradient(options):
    made = model(**options)
    made.loss(notes(), LENGTHS).backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_regression_is_by_the_squared_error_alone():
    """The likelihood beside it trains the deviation, which the squared error does not see."""
    made, frames = model(target="integers"), notes()
    full = torch.full((3,), 8)
    *body, deviation = [p for n, p in made.named_parameters() if n != "layer.raw_deviation"] + [
        made.layer.raw_deviation
    ]
    found = torch.autograd.grad(made.loss(frames, full), [*body, deviation])
    density = made.density(frames)
    error = ((density.mean - frames) / (CLASSES - 1)).square().mean()
    by_hand = torch.autograd.grad(error, body, retain_graph=True)
    for ours, theirs in zip(found, by_hand, strict=False):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    likelihood = -density.log_prob(frames).mean()
    assert torch.allclose(found[-1], torch.autograd.grad(likelihood, deviation)[0])
    assert made.monitored["squared_error"] == pytest.approx(error.item())
    assert made.loss(frames, full).item() == pytest.approx((error + likelihood).item())


@every_target
def test_padding_changes_nothing(target):
    made, frames = model(target=target), notes()
    padded = torch.cat([frames, torch.ones(3, 4, 1).double()], 1)
    assert torch.allclose(made.loss(frames, LENGTHS), made.loss(padded, LENGTHS), rtol=1e-12)
    inside = torch.arange(8) < LENGTHS[:, None]
    longer = torch.arange(12) < LENGTHS[:, None]
    short = made.scores(frames, LENGTHS, inside, None).log_prob
    long = made.scores(padded, LENGTHS, longer, None).log_prob
    assert torch.allclose(short, long, rtol=0, atol=1e-12)
    assert torch.allclose(short, every_frame(made, frames)[inside], rtol=0, atol=1e-12)
    assert torch.allclose(made.features(frames), made.features(padded)[:, :8], rtol=0, atol=1e-12)
    assert torch.equal(made.deviations(frames, LENGTHS), made.deviations(padded, LENGTHS))
    walked = particles.log_likelihood(made.walk(padded, LENGTHS, 2), LENGTHS)
    expected = torch.stack([some.sum() for some in short.split(LENGTHS.tolist())])
    assert torch.allclose(walked, expected, rtol=0, atol=1e-12)
    assert made.walk(frames, LENGTHS, 4).step().shape == (4, 3)


@every_target
@pytest.mark.parametrize("given", [0, WINDOW])
def test_given_notes_are_told_and_neither_scored_nor_trained_on(target, given):
    made, frames = model(target=target), notes()
    made.given_frames = given
    scored = (torch.arange(8) < LENGTHS[:, None]) & (torch.arange(8) >= given)
    assert scored.sum() == (16 if given == 0 else 5 + 0 + 2)
    log_prob = every_frame(made, frames)
    total = torch.where(scored, log_prob, 0.0).sum(1)
    walked = particles.log_likelihood(made.walk(frames, LENGTHS, 2), LENGTHS)
    assert torch.allclose(walked, total, rtol=0, atol=1e-12)
    density = made.density(frames)
    if target == "classes":
        best, expected = density.logits.argmax(-1).double(), -log_prob[scored].mean()
    else:
        best = density.mean.squeeze(-1).round().clamp(0, CLASSES - 1)
        squares = ((density.mean - frames) / (CLASSES - 1)).square().squeeze(-1)
        expected = squares[scored].mean() - log_prob[scored].mean()
    assert made.loss(frames, LENGTHS).item() == pytest.approx(expected.item())
    off = best - frames.squeeze(-1)
    assert torch.equal(made.deviations(frames, LENGTHS), off[scored])


@every_target
def test_a_repeating_melody_is_learned(target):
    melody = torch.tensor([1.0, 4, 6, 1, 6, 9, 3, 4])
    frames = melody.repeat(6)[None, :, None]
    torch.manual_seed(0)
    made = NoteRNN(classes=10, target=target, window=8, recurrent_dim=32, cell="gru")
    losses = train(made, frames, 400, 3e-2)
    assert losses[0] > 2 and losses[-1] < 0.1
    assert (made.deviations(frames, torch.tensor([48])) == 0).all()
    made.eval()
    drawn = made.generate(40, 2, frames[0, :16], generator(0))
    expected = melody.repeat(7)[None, :, None].expand(2, -1, -1)
    assert (drawn == expected).float().mean() > 0.95


def test_a_melody_longer_than_the_window_tells_is_not_learned():
    """After 1 comes 2 or 3, by turns: a window of four cannot tell which, one of five can."""
    melody = torch.tensor([2.0, 0, 0, 0, 1, 3, 0, 0, 0, 1])
    frames = melody.repeat(8)[None, :, None]
    final = {}
    for window in (4, 5):
        torch.manual_seed(0)
        made = NoteRNN(classes=4, window=window, recurrent_dim=16, cell="gru")
        train(made, frames, 150, 3e-2)
        final[window] = every_frame(made, frames)[0, 20:].mean().item()
    assert final[4] < -0.99 * math.log(2) / 5
    assert final[5] > -0.02


@every_target
def test_generation(target):
    made, frames = model(target=target), notes()
    drawn = made.generate(20, 3, frames, generator(0))
    assert drawn.shape == (3, 28, 1)
    assert torch.equal(drawn[:, :8], frames)
    assert set(drawn.unique().tolist()) <= set(range(CLASSES))
    assert torch.equal(drawn, made.generate(20, 3, frames, generator(0)))
    assert not torch.equal(drawn, made.generate(20, 3, frames, generator(1)))
    assert made.generate(2, 4, generator=generator(0)).shape == (4, 2, 1)
    assert made.generate(2, 4, frames[0], generator(0)).shape == (4, 10, 1)


@every_target
def test_generated_pieces_follow_the_likelihood(target):
    made, count = model(target=target, classes=2, window=2), 20_000
    drawn = made.generate(3, count, generator=generator(0)).view(count, 3)
    pieces = torch.tensor(list(itertools.product((0.0, 1.0), repeat=3))).double()
    p = every_frame(made, pieces[..., None]).sum(1).exp()
    place = (drawn @ torch.tensor([4.0, 2.0, 1.0]).double()).long()
    seen = torch.bincount(place, minlength=8) / count
    assert ((seen - p).abs() < 5 * (p * (1 - p) / count).sqrt() + 1e-9).all()


@every_variant
def test_saved_and_loaded_it_is_the_same(options, tmp_path):
    made, other = model(**options), model(seed=1, **options)
    torch.save(made.state_dict(), tmp_path / "weights.pt")
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert torch.equal(every_frame(made, notes()), every_frame(other, notes()))


def test_bad_options_and_notes_are_refused_by_name():
    for options, says in (
        ({"visible": "binary"}, "visible: expected 'notes'"),
        ({"visible_dim": 88}, "visible_dim: a note is one number"),
        ({"target": "pitch"}, "target: expected one of classes, integers, got 'pitch'"),
        ({"cell": "rnn"}, "cell"),
        ({"window": 0}, "window: expected at least 1"),
        ({"classes": 1}, "classes: expected at least 2"),
    ):
        with pytest.raises(ValueError, match=says):
            NoteRNN(**options)
    with pytest.raises(ValueError, match="expected classes 0 to 4, got 0 to 5"):
        model().loss(notes(classes=6, frames=50), torch.full((3,), 50))
