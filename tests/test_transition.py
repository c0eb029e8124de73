"""The fast scan against the same recurrence written plainly, one step of torch's own cell each."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from densities import generator

from cgrnn import scan_cpu
from cgrnn.arithmetic import rounded_products
from cgrnn.layers.conditional import LatentDrive
from cgrnn.transition import CELLS, Transition

BATCH, FRAMES, VISIBLE, HIDDEN, SIZE = 3, 7, 6, 4, 5
BFLOAT16 = 2.0**-9  # largest relative error of rounding to it


@pytest.fixture(params=["compiled", "torch's loop"])
def engine(request):
    """Both ways to do what lies between the products (one where there is no compiler)."""
    with nullcontext() if request.param == "compiled" else scan_cpu.disabled():
        yield request.param


def plain(transition, v, drive, state):
    """The readable reference: nothing precomputed, gradients by autograd alone."""
    contexts = []
    for n in range(v.shape[1]):
        contexts.append(state[0][0])
        spikes = torch.sigmoid(drive.logits[n] + state[0][0] @ drive.weight.T)
        if drive.uniforms is not None:
            spikes = (drive.uniforms[n] < spikes).to(v.dtype)
        parts = [spikes * drive.slabs[n]]
        if transition.feeds_visible:
            parts.insert(0, transition.features(v[:, n]))
        several, inputs = len(state) > 1, torch.cat(parts, -1).unsqueeze(0)
        after = transition.rnn(inputs, state if several else state[0])[1]
        state = after if several else (after,)
    return torch.stack(contexts, 1), state


def example(cell, feeds_visible, sampled):
    torch.manual_seed(0)
    transition = Transition(VISIBLE, HIDDEN, SIZE, (8,), cell, feeds_visible).double()
    for parameter in transition.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    v = torch.bernoulli(torch.full((BATCH, FRAMES, VISIBLE), 0.4)).double()
    drive = LatentDrive(
        torch.randn(FRAMES, BATCH, HIDDEN).double().requires_grad_(),
        torch.randn(FRAMES, BATCH, HIDDEN).double().requires_grad_(),
        torch.randn(HIDDEN, SIZE).double().requires_grad_(),
        torch.rand(FRAMES, BATCH, HIDDEN).double() if sampled else None,
    )
    return transition, v, drive


def outcome(transition, v, drive, run=Transition.forward):
    """Contexts, last state, and all gradients of a random sum of both."""
    contexts, after = run(transition, v, drive, transition.initial_state(BATCH))
    random = generator(1)
    weights = [
        torch.randn(part.shape, dtype=torch.float64, generator=random)
        for part in (contexts, *after)
    ]
    total = sum((w * x).sum() for w, x in zip(weights, (contexts, *after), strict=True))
    inputs = dict(transition.named_parameters())
    inputs |= {"logits": drive.logits, "slabs": drive.slabs, "weight": drive.weight}
    gradients = torch.autograd.grad(total, list(inputs.values()), allow_unused=True)
    return contexts, after, dict(zip(inputs, gradients, strict=True))


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("feeds_visible", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_scan_equals_the_plain_loop_with_all_gradients(engine, cell, feeds_visible, sampled):
    fast_contexts, fast_after, fast = outcome(*example(cell, feeds_visible, sampled))
    slow_contexts, slow_after, slow = outcome(*example(cell, feeds_visible, sampled), plain)
    assert torch.allclose(fast_contexts, slow_contexts, atol=1e-12, rtol=0)
    for mine, theirs in zip(fast_after, slow_after, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-12, rtol=0)
    for name, gradient in slow.items():
        if gradient is None:
            assert fast[name] is None, name
        else:
            assert torch.allclose(fast[name], gradient, atol=1e-10, rtol=0), name


@pytest.mark.parametrize("cell", CELLS)
def test_a_sequence_in_two_pieces_is_the_whole(cell):
    transition, v, drive = example(cell, True, False)
    whole, end = transition(v, drive)
    first = LatentDrive(drive.logits[:3], drive.slabs[:3], drive.weight, None)
    rest = LatentDrive(drive.logits[3:], drive.slabs[3:], drive.weight, None)
    before, middle = transition(v[:, :3], first)
    after, last = transition(v[:, 3:], rest, middle)
    assert torch.allclose(torch.cat([before, after], 1), whole)
    for mine, theirs in zip(last, end, strict=True):
        assert torch.allclose(mine, theirs)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_without_latents_it_is_torchs_kernel_and_pieces_are_the_whole(cell, layers):
    torch.manual_seed(1)
    transition = Transition(VISIBLE, 0, SIZE, (), cell, layers=layers).double()
    v = torch.rand(BATCH, FRAMES, VISIBLE).double()
    whole, end = transition(v)
    zeros = torch.zeros(layers, BATCH, SIZE).double()
    start = (zeros, zeros) if cell == "lstm" else zeros
    expected = transition.rnn(v.transpose(0, 1), start)[0].transpose(0, 1)
    assert torch.allclose(whole[:, 1:], expected[:, :-1])
    before, middle = transition(v[:, :2])
    after, last = transition(v[:, 2:], None, middle)
    assert torch.allclose(torch.cat([before, after], 1), whole)
    assert torch.allclose(last[0], end[0])


def test_a_context_sees_earlier_frames_alone():
    transition, v, drive = example("gru", True, False)
    changed = v.clone()
    changed[:, 3] = 1 - changed[:, 3]
    before, after = transition(v, drive)[0], transition(changed, drive)[0]
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4], after[:, 4])


def test_a_second_backward_is_refused_and_not_wrong():
    transition, v, drive = example("gru", True, False)
    total = transition(v, drive)[0].sum()
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="backward once"):
        total.backward()


def test_unknown_cell_is_refused():
    with pytest.raises(ValueError, match="cell: expected one of gru, lstm, tanh"):
        Transition(2, 0, 3, cell="gru2")


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_rounded_products_change_gradients_by_no_more_than_rounding(engine, cell, sampled):
    """A step rounds some eight times. Such errors add up like noise over the steps back: their
    size is about BFLOAT16 times the root of how many there are."""
    transition, v, drive = example(cell, True, False)
    single = {"logits": drive.logits, "slabs": drive.slabs, "weight": drive.weight}
    single = {name: part.detach().float().requires_grad_() for name, part in single.items()}
    if sampled:  # spikes that no rounding flips
        uniforms = torch.where(torch.rand(drive.logits.shape) < 0.5, -1.0, 2.0)
    drive = LatentDrive(**single, uniforms=uniforms if sampled else None)
    transition, v = transition.float(), v.float()
    _, _, exact = outcome(transition, v, drive)
    with rounded_products():
        contexts, after, found = outcome(transition, v, drive)
    assert contexts.dtype == torch.bfloat16 and all(part.dtype == torch.float32 for part in after)
    size = BFLOAT16 * (8 * FRAMES) ** 0.5
    for name, gradient in exact.items():
        if gradient is None:
            assert found[name] is None
            continue
        assert found[name].dtype == torch.float32
        error = (found[name] - gradient).norm() / gradient.norm()
        assert 0 < error < 2 * size, name
    again = outcome(transition, v, drive)[2]
    assert all(torch.equal(again[name], exact[name]) for name in exact if exact[name] is not None)
