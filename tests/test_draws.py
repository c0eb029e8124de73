"""The compiled random numbers: Philox's published words, and the laws that they follow."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
import torch
from densities import generator
from scipy import stats

from cgrnn import draws
from samplers import native

COUNT = 1_000_003  # not a whole number of blocks
LAWS = {"uniform": (draws.uniform, stats.uniform), "normal": (draws.normal, stats.norm)}
compiled = pytest.mark.skipif(native.library() is None, reason="no C++ compiler")


@compiled
def test_published_words():
    """Of counter 0 and key 0 (Random123's known answers); the first lane of a block has them."""
    words = (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
    out = torch.empty(64)
    library = native.library(draws._SOURCE)
    sizes = map(ctypes.c_int64, (1, 0, 64))
    library.uniforms(*sizes, ctypes.c_void_p(out.data_ptr()))
    assert out[::16].tolist() == pytest.approx([word / 2**32 for word in words], abs=2**-24)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", LAWS)
def test_laws(name, dtype):
    function, law = LAWS[name]
    drawn = function(torch.empty(COUNT, dtype=dtype), generator(0))
    assert drawn.dtype == dtype and drawn.isfinite().all()
    sample = drawn.double().numpy()
    assert stats.kstest(sample, law.cdf).pvalue > 1e-4
    # Tails, and whether numbers near each other know of each other.
    far = law.ppf(1e-4)
    for beyond in ((sample < far).sum(), (sample > law.isf(1e-4)).sum()):
        assert abs(beyond - 100) < 5 * 10 + 1
    centred = (sample - sample.mean()) / sample.std()
    for lag in (1, 2, 15, 16, 32, 48, 64):
        assert abs(np.mean(centred[lag:] * centred[:-lag])) < 5 / COUNT**0.5, lag


@compiled
@pytest.mark.parametrize("name", LAWS)
def test_the_same_whatever_the_threads_and_others_for_another_seed(name):
    function, found, before = LAWS[name][0], [], torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(function(torch.empty(7, 1001), generator(1)))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)
    assert not (function(torch.empty(7, 1001), generator(2)) == found[0]).any()
    random = generator(1)
    twice = [function(torch.empty(50), random) for _ in range(2)]
    assert not (twice[0] == twice[1]).any()
