"""Windowed attention against a plain loop, and the LSTM-NADE that is built on it."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from densities import generator

from cgrnn.attention import WindowAttention
from cgrnn.models.lstm_nade import LSTMNADE
from cgrnn.models.sequence import mask_of
from samplers import particles

WINDOW = 3
KINDS = ("binary", "continuous")


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=generator(seed))


def randomised(module, seed=0, scale=0.5):
    random = generator(seed)
    with torch.no_grad():
        for parameter in module.double().parameters():
            parameter.normal_(std=scale, generator=random)
    return module.eval()


def attention(window=WINDOW, dim=4, seed=0):
    return randomised(WindowAttention(dim, window), seed, 1.0)


def model(visible="binary", **options):
    sizes = {"visible_dim": 6, "recurrent_dim": 5, "hidden_dim": 4, "components": 2, "mlp_dims": ()}
    sizes |= {"window": WINDOW, "dropout": 0.0, "visible": visible}
    torch.manual_seed(0)
    return randomised(LSTMNADE(**(sizes | options)))


def frames_of(made, batch=3, count=8):
    noise = normal(batch, count, made.visible_dim, seed=1)
    return noise if made.visible == "continuous" else (noise > 0.3).double()


def attended_by_loop(module, states, weight_of_lag=lambda lag: lag):
    """One sequence `(frames, R)`, state by state."""
    rows = []
    for n, state in enumerate(states):
        seen = range(max(0, n - module.window + 1), n + 1)
        scores = torch.stack(
            [
                (module.query.weight @ state) @ states[m] / math.sqrt(len(state))
                + module.lag_bias[weight_of_lag(n - m)]
                for m in seen
            ]
        )
        found = sum(w * states[m] for w, m in zip(scores.softmax(0), seen, strict=True))
        rows.append(state + module.output.weight @ found)
    return torch.stack(rows)


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 6, 7, 20])
@pytest.mark.parametrize("window", [2, 3, 5, 50])
def test_attention_is_the_plain_loop(frames, window):
    module, states = attention(window), normal(2, frames, 4)
    expected = torch.stack([attended_by_loop(module, sequence) for sequence in states])
    assert (module(states) - expected).abs().max() < 1e-12


def test_the_loop_tells_lags_apart():
    """Turned about, the biases give another result: the comparison above can fail."""
    module, states = attention(), normal(7, 4)
    turned = attended_by_loop(module, states, lambda lag: WINDOW - 1 - lag)
    assert (module(states[None])[0] - turned).abs().max() > 0.1


@pytest.mark.parametrize("known", [0, 1, 2])
@pytest.mark.parametrize("frames", [1, 2, 5])
def test_attention_in_pieces_is_attention_of_the_whole(known, frames):
    module, states = attention(), normal(2, 10, 4)
    begin = 4
    piece = states[:, begin : begin + frames]
    before = states[:, begin - known : begin]
    expected = module(states[:, begin - known : begin + frames])[:, known:]
    assert torch.allclose(module(piece, before), expected, rtol=0, atol=1e-12)


def test_attention_sees_its_window_and_nothing_else():
    """The Jacobian by frames is a band: exactly zero outside it, not zero within."""
    module, states = attention(), normal(1, 9, 4)
    jacobian = torch.autograd.functional.jacobian(lambda x: module(x[None])[0], states[0])
    depends = jacobian.abs().sum((1, 3))
    lag = torch.arange(9)[:, None] - torch.arange(9)
    band = (lag >= 0) & (lag < WINDOW)
    assert (depends[~band] == 0).all()
    assert (depends[band] > 1e-6).all()


def test_attention_has_the_gradient_of_the_loop():
    module, states = attention(), normal(1, 8, 4).requires_grad_()
    weight = normal(8, 4, seed=2)
    wanted = [*module.parameters(), states]
    found = torch.autograd.grad((module(states)[0] * weight).sum(), wanted)
    looped = torch.autograd.grad((attended_by_loop(module, states[0]) * weight).sum(), wanted)
    for ours, theirs in zip(found, looped, strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-11)


def test_a_window_that_sees_only_itself_is_refused():
    with pytest.raises(ValueError, match="window: expected at least 2, got 1"):
        LSTMNADE(window=1)


@pytest.mark.parametrize("visible", KINDS)
@pytest.mark.parametrize("options", [{}, {"layers": 1}, {"layers": 4}, {"cell": "gru"}], ids=str)
def test_frame_by_frame_equals_the_whole_sequence(visible, options):
    made = model(visible, **options)
    frames = frames_of(made)
    whole, last = made.contexts(frames)
    state, steps = made.transition.initial_state(3), []
    for n in range(frames.shape[1]):
        steps.append(made.transition.context(state))
        _, state = made.contexts(frames[:, n : n + 1], None, state)
    assert torch.allclose(torch.stack(steps, 1), whole, rtol=0, atol=1e-12)
    first, state = made.contexts(frames[:, :5])
    second, state = made.contexts(frames[:, 5:], None, state)
    assert torch.allclose(torch.cat([first, second], 1), whole, rtol=0, atol=1e-12)
    for part, other in zip(state, last, strict=True):
        assert torch.allclose(part, other, rtol=0, atol=1e-12)
    assert last[-1].shape == (WINDOW, 3, 5)


@pytest.mark.parametrize("visible", KINDS)
def test_the_walk_gives_the_exact_likelihood(visible):
    made = model(visible)
    frames, lengths = frames_of(made), torch.tensor([8, 3, 5])
    walk = made.walk(frames, lengths, paths=2)
    walk.step()
    walk.select(torch.tensor([[1, 0, 1], [0, 0, 1]]))
    found = particles.log_likelihood(made.walk(frames, lengths, paths=2), lengths)
    whole = made.log_likelihood(frames, lengths).log_prob
    expected = torch.stack([some.sum() for some in whole.split(lengths.tolist())])
    assert torch.allclose(found, expected)


@pytest.mark.parametrize("visible", KINDS)
def test_contexts_never_see_the_present_or_the_future(visible):
    made = model(visible)
    frames = frames_of(made)
    changed = frames.clone()
    changed[:, 4:] = 1 - changed[:, 4:]
    before, after = made.contexts(frames)[0], made.contexts(changed)[0]
    assert torch.equal(before[:, :5], after[:, :5])
    assert ((before - after).abs().sum(-1)[:, 5:] > 1e-6).all()
    drawn, again = (made.predict(x, generator(3), samples=50) for x in (frames, changed))
    assert torch.equal(drawn[:, :, :5], again[:, :, :5])


@pytest.mark.parametrize("visible", KINDS)
def test_padding_changes_nothing(visible):
    made, lengths = model(visible), torch.tensor([8, 3, 5])
    frames = frames_of(made) * mask_of(lengths, 8)[..., None]
    padded = torch.cat([frames, torch.ones(3, 4, 6).double()], 1)
    short, long = (made.log_likelihood(x, lengths).log_prob for x in (frames, padded))
    assert torch.allclose(short, long, rtol=0, atol=1e-12)
    alone = made.log_likelihood(frames[1:2, :3], lengths[1:2]).log_prob
    assert torch.allclose(short[8:11], alone, rtol=0, atol=1e-12)
    assert torch.allclose(made.loss(frames, lengths), made.loss(padded, lengths))
    assert torch.allclose(made.features(frames), made.features(padded)[:, :8])


@pytest.mark.parametrize("visible", KINDS)
def test_every_parameter_gets_a_gradient(visible):
    made = model(visible)
    made.loss(frames_of(made), torch.tensor([8, 3, 5])).backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_likelihood_of_all_sequences_sums_to_one():
    made = model(visible_dim=2, window=2)
    sequences = torch.tensor(list(itertools.product((0.0, 1.0), repeat=6))).double().view(64, 3, 2)
    likelihood = made.log_likelihood(sequences, torch.full((64,), 3))
    assert likelihood.kind == "exact"
    assert likelihood.log_prob.view(64, 3).sum(1).logsumexp(0) == pytest.approx(0.0, abs=1e-10)


def test_likelihood_of_all_continuous_pairs_integrates_to_one():
    """One unit and two frames on a grid, finer than the narrowest conditional is wide."""
    made = model("continuous", visible_dim=1, window=2)
    line = torch.linspace(-30, 30, 601).double()
    pairs = torch.cartesian_prod(line, line).view(-1, 2, 1)
    total = [
        made.log_likelihood(some, torch.full((len(some),), 2)).log_prob.view(-1, 2).sum(1)
        for some in pairs.split(601 * 200)
    ]
    mass = torch.cat(total).logsumexp(0) + 2 * math.log(0.1)
    assert mass == pytest.approx(0.0, abs=1e-4)


def test_generated_frames_follow_the_likelihood():
    made, count = model(visible_dim=1, window=2), 20_000
    drawn = made.generate(3, count, generator=generator(0)).view(count, 3)
    sequences = torch.tensor(list(itertools.product((0.0, 1.0), repeat=3))).double()
    log_prob = made.log_likelihood(sequences[..., None], torch.full((8,), 3)).log_prob
    p = log_prob.view(8, 3).sum(1).exp().detach()
    place = (drawn @ torch.tensor([4.0, 2.0, 1.0]).double()).long()
    seen = torch.bincount(place, minlength=8) / count
    assert ((seen - p).abs() < 5 * (p * (1 - p) / count).sqrt()).all()


@pytest.mark.parametrize("visible", KINDS)
def test_generation_keeps_the_prime_and_goes_on_from_it(visible):
    made = model(visible)
    frames = frames_of(made)
    drawn = made.generate(4, 3, frames, generator(0))
    assert drawn.shape == (3, 12, 6)
    assert torch.equal(drawn[:, :8], frames)
    # The first new frame is drawn from the density after the prime.
    context = made.contexts(torch.cat([frames, frames[:, :1]], 1))[0][:, 8]
    torch.testing.assert_close(drawn[:, 8], made.layer(context).sample((), generator(0)))


def test_it_recalls_what_attention_alone_can_reach():
    """Random bits that repeat after a lag the fed state is blind to: without its weights from one
    frame to the next the LSTM forgets, and only the attention brings the old frame back."""
    torch.manual_seed(0)
    lag, made = 4, LSTMNADE(1, 16, 4, window=6, layers=1, dropout=0.0)
    recurrent = made.transition.transition.rnn
    frames = torch.zeros(32, 40, 1)
    frames[:, :lag] = (torch.rand(32, lag, 1, generator=generator(1)) > 0.5).float()
    for n in range(lag, 40):
        frames[:, n] = frames[:, n - lag]
    lengths = torch.full((32,), 40)
    trained = [p for name, p in made.named_parameters() if "weight_hh" not in name]
    optimizer = torch.optim.Adam(trained, 2e-2)
    for _ in range(150):
        with torch.no_grad():  # no way from frame to frame: neither output nor cell
            recurrent.weight_hh_l0.zero_()
            recurrent.bias_ih_l0[16:32] = -30.0
            recurrent.bias_hh_l0[16:32] = 0.0
        loss = made.loss(frames, lengths)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    floor = lag / 40 * math.log(2)
    assert floor - 0.02 < loss.item() < floor + 0.1
    with torch.no_grad():  # and without the lag's bias to point at it, it cannot
        made.transition.attention.lag_bias.zero_()
        assert made.loss(frames, lengths) > 0.4


def test_saved_and_loaded_it_is_the_same(tmp_path):
    made = model()
    torch.save(made.state_dict(), tmp_path / "weights.pt")
    other = model()
    randomised(other, seed=5)
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    frames, lengths = frames_of(made), torch.tensor([8, 3, 5])
    expected = made.log_likelihood(frames, lengths).log_prob
    assert torch.equal(other.log_likelihood(frames, lengths).log_prob, expected)


def test_training_lowers_the_loss():
    torch.manual_seed(0)
    made = LSTMNADE(6, 12, 8, window=4, dropout=0.0)
    melody = torch.eye(6)[torch.arange(24) % 6].expand(4, 24, 6)
    lengths, optimizer = torch.full((4,), 24), torch.optim.Adam(made.parameters(), 2e-2)
    losses = []
    for _ in range(100):
        losses.append(made.loss(melody, lengths))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.1 < 2 < losses[0]


def test_a_long_sequence_takes_memory_in_its_window_not_its_square():
    """16,000 states: a full matrix of weights would take a gigabyte."""
    module = WindowAttention(4, 8)
    with torch.profiler.profile(profile_memory=True) as profile, torch.no_grad():
        module(torch.ones(1, 16_000, 4))
    allocated = max(event.cpu_memory_usage for event in profile.key_averages())
    assert allocated < 10e6
