"""The compiled sum of softplus against torch's, by value and by gradient."""

from __future__ import annotations

import math

import pytest
import torch
from densities import generator

from cgrnn.layers.softplus import quadratic_sum, usable
from samplers import native

pytestmark = pytest.mark.skipif(native.library() is None, reason="no C++ compiler")
UNITS = 203  # two blocks of factors and a rest


def inputs(dtype, samples=(2,), batch=(3, 5), scale=1.0):
    random = generator(0)
    shapes = ((*samples, *batch, UNITS), (*batch, UNITS), (UNITS,), (UNITS,))
    return [
        (scale * torch.randn(shape, dtype=torch.float64, generator=random))
        .to(dtype)
        .requires_grad_()
        for shape in shapes
    ]


def plain(x, constant, slope, curvature):
    logits = constant + slope * x + curvature * x * x  # torch's softplus is not exact above 20
    return torch.logaddexp(logits, torch.zeros_like(logits)).sum(-1)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("samples", [(), (2,), (2, 2)])
def test_equals_torch_with_all_gradients(samples, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        results = []
        for function in (quadratic_sum, plain):
            given = inputs(torch.float64, samples)
            total = function(*given)
            weights = torch.randn(total.shape, dtype=torch.float64, generator=generator(1))
            results.append((total, *torch.autograd.grad((weights * total).sum(), given)))
    finally:
        torch.set_num_threads(before)
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_single_precision_is_as_exact_as_torchs(scale):
    """Against double: no worse than five times what torch's own single precision is off by."""
    exact = plain(*inputs(torch.float64, scale=scale))
    single = inputs(torch.float32, scale=scale)
    own, theirs = (
        (function(*single).double() - exact).norm() / exact.norm()
        for function in (quadratic_sum, plain)
    )
    assert own < 5 * theirs + 1e-7


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extremes(dtype):
    one, zero = torch.ones(1, dtype=dtype), torch.zeros(1, dtype=dtype)
    for logit, expected, slope in ((1e4, 1e4, 1.0), (-1e4, 0.0, 0.0), (math.inf, math.inf, 1.0)):
        constant = torch.full((1, 1), logit, dtype=dtype, requires_grad=True)
        total = quadratic_sum(one[None], constant, zero, zero)
        assert total.item() == expected
        (gradient,) = torch.autograd.grad(total.sum(), constant)
        assert gradient.item() == pytest.approx(slope, abs=1e-30)
    assert quadratic_sum(one[None] * math.nan, zero[None], one, zero).isnan().all()


def test_takes_what_it_can_and_leaves_the_rest():
    x, constant = torch.zeros(2, 3, 4), torch.zeros(3, 4)
    assert usable(x, constant) and usable(x, constant[0])
    assert not usable(x, constant[:1]) and not usable(x.half(), constant.half())
    assert not usable(x[:, :0], constant[:0]) and not usable(x.double(), constant)
