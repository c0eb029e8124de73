"""The compiled kernel against the densities' own methods, fed with the same random numbers."""

from __future__ import annotations

import ctypes
import math
from dataclasses import replace

import pytest
import torch
from densities import BINARY, CONTINUOUS, LAYERS, SPIKE_SLAB, generator, random_batch, random_frames
from scipy import stats
from test_stationarity import FLOOR, distances, spread_density

from cgrnn.layers.bernoulli_rbm import BernoulliRBMDensity
from evaluation import ais, exact
from evaluation.walks import Walk
from samplers import chain, fused, native

VISIBLE, HIDDEN, COUNT, CHAINS = 7, 6, 3, 7  # 21 rows: a block of lanes and part of another
BETAS = [0.0, 0.1, 0.35, 0.6, 1.0]

pytestmark = pytest.mark.skipif(native.library() is None, reason="no C++ compiler")


def words(counter, key=(0, 0)):
    """Philox4x32-10, written plainly."""
    c, k = list(counter), list(key)
    for _ in range(10):
        p, q = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [(q >> 32) ^ c[1] ^ k[0], q % 2**32, (p >> 32) ^ c[3] ^ k[1], p % 2**32]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return c


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ([0] * 4, [0] * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_random_words_are_the_published_ones(counter, key, expected):
    made = (ctypes.c_uint32 * 4)()
    native.library().philox((ctypes.c_uint32 * 4)(*counter), (ctypes.c_uint32 * 2)(*key), made)
    for found in (list(made), words(counter, key)):
        assert " ".join(f"{word:08x}" for word in found) == expected


class Draws:
    """The numbers of the kernel for the rows of one call, `(chains, densities, units)`."""

    def __init__(self, seed):
        self.key = int(torch.randint(2**62, (), generator=generator(seed)))

    def words(self, units, step, purpose):
        key = (self.key % 2**32, self.key >> 32)
        rows = [
            [w for g in range(-(-units // 4)) for w in words((g, 4 * step + purpose, r, 0), key)]
            for r in range(COUNT * CHAINS)
        ]
        found = torch.tensor(rows, dtype=torch.float64)[:, : 4 * -(-units // 4)]
        return found.view(COUNT, CHAINS, -1).transpose(0, 1)

    def uniform(self, units, step, purpose):
        return ((self.words(units, step, purpose) // 256 + 0.5) / 2**24)[..., :units]

    def normal(self, units, step, purpose):
        w = self.words(units, step, purpose)
        radius = (-2 * ((w[..., 0::2] + 0.5) / 2**32).log()).sqrt()
        angle = w[..., 1::2] * (2 * math.pi / 2**32)
        pair = torch.stack([radius * angle.cos(), radius * angle.sin()], -1)
        return pair.flatten(-2)[..., :units]


def move(density, v, draws, step):
    """One sweep by the density's own formulas."""
    h = (draws.uniform(HIDDEN, step, 0) < torch.sigmoid(density.hidden_logits(v))).double()
    latents = (h,)
    if hasattr(density, "alpha"):
        noise = draws.normal(HIDDEN, step, 1) / density.alpha.sqrt()
        latents = (h, h * density.slab_mean(v) + noise)
    mean = density.mean_visible(latents)
    if not hasattr(density, "precision_diag"):
        return (draws.uniform(VISIBLE, step, 2) < mean).double()
    return mean + draws.normal(VISIBLE, step, 2) / density.visible_precision(latents).sqrt()


@pytest.mark.parametrize("path", ["annealed", "tempered"])
@pytest.mark.parametrize("kind", LAYERS)
def test_annealing_equals_the_plain_loop(kind, path):
    density, draws = random_batch(kind, VISIBLE, HIDDEN, 3, COUNT, 0.7), Draws(5)
    at = [getattr(density, path)(beta) for beta in BETAS]
    if kind in BINARY:
        v = (draws.uniform(VISIBLE, 0, 2) < torch.sigmoid(at[0].visible_bias)).double()
    else:
        noise = draws.normal(VISIBLE, 0, 2) / density.precision_diag.sqrt()
        v = at[0].visible_bias / density.precision_diag + noise
    expected = []
    for step in range(1, len(BETAS)):
        expected.append(at[step - 1].free_energy(v) - at[step].free_energy(v))
        v = move(at[step], v, draws, step)
    levels = [density.path_factors(path, beta) for beta in BETAS]
    found = fused.rises(density, CHAINS, levels, generator(5))
    assert torch.allclose(found, torch.stack(expected), atol=1e-10, rtol=1e-10)
    total = fused.anneal(density, CHAINS, levels, generator(5)).log_weights
    assert torch.allclose(total, sum(expected), atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("kind", LAYERS)
def test_annealing_from_bases_of_their_own_equals_the_plain_loop(kind):
    density, draws = random_batch(kind, VISIBLE, HIDDEN, 3, COUNT, 0.7), Draws(5)
    walk = Walk("tempered", list(BETAS), False, CHAINS)
    bases = torch.randn(COUNT, VISIBLE, dtype=torch.float64, generator=generator(9))
    at = [walk.at(density, level, bases) for level in range(len(BETAS))]
    assert torch.allclose(at[0].visible_bias, bases)
    assert torch.allclose(at[-1].visible_bias, density.visible_bias)
    if kind in BINARY:
        v = (draws.uniform(VISIBLE, 0, 2) < torch.sigmoid(bases)).double()
    else:
        noise = draws.normal(VISIBLE, 0, 2) / density.precision_diag.sqrt()
        v = bases / density.precision_diag + noise
    expected = at[0].base_log_partition()
    for step in range(1, len(BETAS)):
        expected = expected + at[step - 1].free_energy(v) - at[step].free_energy(v)
        last = v
        v = move(at[step], v, draws, step)
    found = walk.fused_up(density, generator(5), bases=bases)
    assert torch.allclose(found.log_weights, expected, atol=1e-10, rtol=1e-10)
    assert torch.allclose(found.frames, last, atol=1e-10, rtol=1e-10)


def test_frames_and_fields_of_other_shapes_are_refused():
    density = random_batch(BINARY[0], VISIBLE, HIDDEN, 4, COUNT)
    with pytest.raises(ValueError, match="v: frames of 99 units"):
        chain(density, torch.zeros(COUNT, 99, dtype=torch.float64), 1, generator(0))
    start = torch.zeros(CHAINS, COUNT, VISIBLE, dtype=torch.float64)
    for bias in (density.hidden_bias[0], density.hidden_bias[:2]):  # not one for each density
        with pytest.raises((ValueError, RuntimeError), match=r"hidden_bias|expand"):
            chain(replace(density, hidden_bias=bias), start, 2, generator(1))


@pytest.mark.parametrize("kind", LAYERS)
def test_sweeps_equal_the_plain_loop(kind):
    density, draws = random_batch(kind, VISIBLE, HIDDEN, 4, COUNT, 0.7), Draws(6)
    start = random_frames(kind, COUNT * CHAINS, VISIBLE, 0).view(CHAINS, COUNT, VISIBLE)
    # Of sweeps the rows count the chains before the densities.
    v, by_row = start, lambda x: x.transpose(0, 1).reshape(CHAINS, COUNT, -1)
    plain = draws.words
    draws.words = lambda *args: by_row(plain(*args))
    for step in (1, 2, 3):
        v = move(density, v, draws, step)
    found = chain(density, start, 3, generator(6))
    assert torch.allclose(found, v, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("kind", LAYERS)
def test_weights_in_single_precision(kind):
    """One step without a move: the difference of two free energies, to a few roundings."""
    density = random_batch(kind, 50, 230, 7, COUNT, 0.3)
    frames = random_frames(kind, COUNT * CHAINS, 50, 1).view(CHAINS, COUNT, 50)
    levels = [density.path_factors("tempered", beta) for beta in (0.2, 1.0)]
    expected = density.tempered(0.2).free_energy(frames) - density.free_energy(frames)
    fields = {name: getattr(density, name) for name in vars(density) if name != "beta"}
    single = type(density)(beta=1.0, **{name: x.float() for name, x in fields.items()})
    found = fused.anneal(single, CHAINS, levels, generator(0), frames).log_weights
    size = density.free_energy(frames).abs() + expected.abs() + 230
    assert ((found - expected).abs() / size).max() < 2e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_draws_have_their_law(dtype):
    """Without couplings units are independent: normal, and on as often as their bias says."""
    many = 200_000
    gaussian = random_batch(CONTINUOUS[0], 2, 3, 0, 1)
    gaussian = type(gaussian)(
        *(torch.zeros(n, dtype=dtype) for n in ((2, 3), (1, 2), (1, 3))),
        1.0,
        torch.ones(1, 2, dtype=dtype),
    )
    v = chain(gaussian, torch.zeros(many, 1, 2, dtype=dtype), 1, generator(0))[:, 0]
    for unit in v.double().T:
        assert stats.kstest(unit, "norm").pvalue > 1e-6
        assert 3.8 < unit.abs().max() < 6.8
    assert abs(float(torch.corrcoef(v.double().T)[0, 1])) < 5 / math.sqrt(many)
    assert abs(
        float(torch.corrcoef(torch.stack([v[1:, 0], v[:-1, 0]]).double())[0, 1])
    ) < 5 / math.sqrt(many)
    bias = torch.tensor([[-6.0, -1.0, 0.0, 2.0]], dtype=dtype)
    zeros = (torch.zeros(4, 3, dtype=dtype), bias, torch.zeros(1, 3, dtype=dtype))
    v = chain(
        BernoulliRBMDensity(*zeros, 1.0), torch.zeros(many, 1, 4, dtype=dtype), 1, generator(1)
    )
    p = torch.sigmoid(bias[0].double())
    off = (v[:, 0].double().mean(0) - p) / (p * (1 - p) / many).sqrt()
    assert off.abs().max() < 5


@pytest.mark.parametrize("kind", LAYERS)
def test_sweeps_from_exact_draws_do_not_drift(kind):
    def sweep(density, v, random):
        return chain(density, v, 1, random)

    assert distances(spread_density(kind), sweep, (1, 10)).max() < FLOOR


@pytest.mark.parametrize("kind", LAYERS)
def test_estimates_with_and_without_it_agree_with_the_truth(kind):
    density = random_batch(kind, 6, 5, 11, 8)
    how = {"chains": 200, "levels": 100, "collapsed": False}
    compiled = ais.log_partition(density, generator=generator(0), **how)
    with fused.disabled():
        plain = ais.log_partition(density, generator=generator(0), **how)
    assert not torch.equal(compiled.log_z, plain.log_z)
    truth = exact.log_partition(density)
    for found in (compiled, plain):
        assert ((found.log_z - truth) / found.stderr).abs().max() < 5


def test_numbers_depend_neither_on_threads_nor_on_pieces(monkeypatch):
    density = random_batch(SPIKE_SLAB[0], VISIBLE, HIDDEN, 0, 50)
    before, found = torch.get_num_threads(), []
    for threads, piece in ((1, 1 << 16), (3, 1 << 16), (2, 40)):
        monkeypatch.setattr(fused, "_PIECE", piece)
        monkeypatch.setattr(fused, "_SMALL", 0)
        torch.set_num_threads(threads)
        try:
            found.append(ais.log_partition(density, 20, 10, generator(0)).log_weights)
        finally:
            torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_progress_is_told_in_chain_levels():
    told = []
    density = random_batch(BINARY[0], VISIBLE, HIDDEN, 0, 50)
    ais.log_partition(density, 20, 10, generator(0), "linear", progress=told.append)
    assert sum(told) == 50 * 20 * 10


def test_a_class_that_inherits_is_not_known():
    class Other(BernoulliRBMDensity):
        pass

    fields = torch.ones(2, 1), torch.zeros(2), torch.zeros(1), 1.0
    assert fused.knows(BernoulliRBMDensity(*fields))
    assert not fused.knows(Other(*fields))
    assert not fused.knows(BernoulliRBMDensity(*(x.bfloat16() for x in fields[:3]), 1.0))
    with fused.disabled():
        assert not fused.knows(BernoulliRBMDensity(*fields))


@pytest.mark.parametrize("compiler", ["", "false"])
def test_without_a_compiler_there_is_no_kernel(compiler, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", compiler)
    if not compiler:
        monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.warns(UserWarning, match="no C.. compiler that builds sweeps.cpp"):
        assert native.library.__wrapped__() is None
    assert not list(tmp_path.rglob("*.so"))


def test_a_build_is_kept_and_found_again():
    assert native.library.__wrapped__() is not None
    kept = {file: file.stat().st_mtime_ns for file in native._folder().glob("*.so")}
    assert native.library.__wrapped__() is not None
    assert kept == {file: file.stat().st_mtime_ns for file in native._folder().glob("*.so")}
