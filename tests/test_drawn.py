"""Draws of the latents that are fed back: their number, and the error they leave to a figure."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from densities import generator, without_gradient

from cgrnn.batches import Batches
from cgrnn.models import CGRNN
from evaluation import drawn, exact, likelihood, mean_partition
from evaluation.blocks import Blocks
from evaluation.drawn import Drawn

LENGTHS = [2, 2, 60, 2, 2, 60]  # so uneven that the two averages have errors of their own
DRAWS = 200


class DoubleBatches(Batches):
    """Batches in the precision of the tests."""

    def __getitem__(self, number):
        batch = super().__getitem__(number)
        return replace(batch, frames=batch.frames.double())


def made(lengths=LENGTHS, **options):
    model = CGRNN(6, 4, 5, **{"latents": "sample", **options}).eval().double()
    for parameter in without_gradient(model).parameters():
        torch.nn.init.normal_(parameter, std=0.7, generator=generator(0))
    frames = np.random.default_rng(0).random((sum(lengths), 6)) < 0.4
    return model, DoubleBatches(frames.astype(np.float32), np.array(lengths), 4)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(mean_partition, "REVERSE_SWEEPS", 20)
    monkeypatch.setattr(mean_partition, "PILOT_FRAMES", 40)


@cache
def enumerated():
    """Both averages under each of many draws of the latents, with exact `log Z`, `(draws, 2)`."""
    model, batches = made()
    random = generator(12345)

    def averages():
        scores = torch.cat(
            [
                model.log_likelihood(b.frames, b.lengths, exact.log_partition, random).log_prob
                for b in batches
            ]
        )
        pieces = scores.split(LENGTHS)
        return torch.stack([scores.mean(), torch.stack([p.mean() for p in pieces]).mean()])

    return torch.stack([averages() for _ in range(DRAWS)])


def test_both_errors_are_those_of_repetitions(monkeypatch):
    """So few draws that they are most of the error."""
    monkeypatch.setattr(drawn, "MOST_DRAWS", 9)
    model, batches = made()
    truth, its = enumerated().mean(0), enumerated().var(0)
    found = [
        likelihood.evaluate(model, batches, 10, 60, 0.04, generator(seed)) for seed in range(12)
    ]
    assert {one.draws for one in found} == {9}
    figures = torch.tensor([[one.per_frame, one.per_sequence] for one in found])
    errors = torch.tensor([[one.stderr, one.per_sequence_stderr] for one in found])
    off = (figures - truth) ** 2
    # Chi of 12: beyond three deviations.
    fair = (off / (errors**2 + its / DRAWS)).mean(0).sqrt()
    assert (fair > 0.4).all() and (fair < 1.75).all()


def test_sequences_of_one_length_have_one_average():
    found = likelihood.evaluate(*made([10] * 6), 6, 60, 0.1, generator(0))
    assert found.per_sequence == pytest.approx(found.per_frame)
    assert found.per_sequence_stderr == pytest.approx(found.stderr, rel=0.02)


def test_the_spread_is_that_of_the_latents_alone():
    model, batches = made()
    often = Drawn(model, batches, 0.01, Blocks(1))
    assert often.count == drawn.MOST_DRAWS
    truth = (enumerated().var(0) / often.count).tolist()
    log_z = exact.log_partition(often.density)
    for noise in (0.0, 0.8):
        its = torch.full_like(log_z, noise**2)
        noisy = log_z + noise * torch.randn(log_z.shape, dtype=its.dtype, generator=generator(2))
        found, raw = often.spread(noisy, its), often.spread(noisy, 0 * its)
        for one, true in zip(found, truth, strict=True):
            assert true / 1.5 < one < 1.5 * true  # known to an eighth; the truth to a tenth
        assert raw.per_frame - found.per_frame == pytest.approx(noise**2 / len(log_z))


def test_as_many_as_the_target_asks_for():
    model, batches = made()
    one_draw = float(enumerated()[:, 0].std())
    few, more = (Drawn(model, batches, one_draw / k, Blocks(0)).count for k in (0.5, 4))
    assert few == 9  # the two long sequences and the short ones are as 2.3 alike: 1 + 16 / 2.3
    assert 20 < more < 80  # half of the squared error: 2 · 4², and a quarter for caution
    found = likelihood.evaluate(model, batches, 10, 60, 0.7 * one_draw, generator(0))
    assert found.stderr <= 0.7 * one_draw and not any("--seed" in text for text in found.warnings)
    assert Drawn(*made([40]), 9.0, Blocks(0)).count == 17


def test_a_pilot_of_some_sequences_says_what_all_would(monkeypatch):
    model, batches = made([8] * 160)
    whole = Drawn(model, batches, 0.01, Blocks(0))
    monkeypatch.setattr(drawn, "PILOT_FRAMES", 320)
    some = Drawn(model, batches, 0.01, Blocks(0))
    assert 4 * some.chain_levels == whole.chain_levels
    assert 10 < whole.count < drawn.MOST_DRAWS
    assert 0.5 < some.count / whole.count < 1.8  # 40 degrees of freedom


def test_a_target_beyond_the_most_draws_is_missed_honestly(monkeypatch):
    monkeypatch.setattr(drawn, "MOST_DRAWS", 10)
    model, batches = made()
    found = likelihood.evaluate(model, batches, 10, 60, 0.01, generator(0))
    assert found.draws == 10
    assert found.stderr**2 > 0.5 * float(enumerated()[:, 0].var()) / 10
    warning = found.warnings[-1]
    assert f"± {found.stderr:.2g} where ± 0.01" in warning
    assert f"{math.ceil((found.stderr / 0.01) ** 2)} values of --seed" in warning


@pytest.mark.parametrize("options", [{"latents": "mean"}, {"feedback": "visible"}])
def test_latents_that_are_not_drawn_leave_nothing(options):
    once = Drawn(*made(**options), 0.05, Blocks(0))
    log_z = exact.log_partition(once.density)
    assert (once.count, once.rest(), once.chain_levels) == (1, 0.05, 0)
    assert once.spread(log_z, log_z) == (0.0, 0.0) and once.warnings(1.0) == []
    found = likelihood.evaluate(*made(**options), 4, 60, 1.0, generator(0))
    assert (found.kind, found.draws) == ("estimate", None)


def evaluated(blocks: Blocks) -> dict[str, object]:
    return asdict(likelihood.evaluate(*made(), 4, 60, 0.1, blocks))


def rank(number: int, folder: Path) -> None:
    store = dist.FileStore(str(folder / "store"), 2)
    dist.init_process_group("gloo", rank=number, world_size=2, store=store)
    with Blocks(3, "cpu", folder / "work", {}) as blocks:
        found = evaluated(blocks)
        dist.barrier()
    torch.save(found, folder / f"{number}.pt")
    dist.destroy_process_group()


def test_interrupted_or_on_two_processes_it_says_the_same(tmp_path, monkeypatch):
    whole, written, write = evaluated(Blocks(3)), [], Blocks._write

    def watched(blocks, name, number, result):
        if len(written) == 2:  # in the pilot of the draws
            raise KeyboardInterrupt
        write(blocks, name, number, result)
        written.append(name)

    with monkeypatch.context() as patch:
        patch.setattr(Blocks, "_write", watched)
        with pytest.raises(KeyboardInterrupt), Blocks(3, "cpu", tmp_path / "work", {}) as blocks:
            evaluated(blocks)
    assert written == ["draws", "draws"] and (tmp_path / "work").exists()
    processes = [get_context("fork").Process(target=rank, args=(n, tmp_path)) for n in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert torch.load(tmp_path / "0.pt") == torch.load(tmp_path / "1.pt") == whole
