"""Blocks of work: kept when killed, shared by processes, and the same figures in any case."""

from __future__ import annotations

import os
import signal
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from conftest import PATIENCE
from densities import generator

from cgrnn.models import RNN
from evaluation.blocks import Blocks, blocks_of

MEANS = [0.0, 10.0, 20.0, 30.0, 40.0]


class Work:
    """Draws about a mean, counts its calls, and stops where it is told to."""

    def __init__(self, stop=None, error=KeyboardInterrupt):
        self.done, self.stop, self.error = [], stop, error

    def __call__(self, mean, source):
        if mean == self.stop:
            raise self.error
        self.done.append(mean)
        draws = mean + torch.randn(3, generator=source)
        return {"draws": draws, "more": {"mean": float(draws.mean()), "none": None, "text": "a"}}


def same(one, two):
    assert len(one) == len(two)
    for a, b in zip(one, two, strict=True):
        assert a["draws"].equal(b["draws"]) and a["more"] == b["more"]


def test_draws_depend_on_seed_stage_and_number_alone():
    found = Blocks(7).run("a", MEANS, Work())
    same(found, Blocks(7).run("a", MEANS, Work()))
    same(found[:2], Blocks(7).run("a", MEANS[:2], Work()))
    noise = [part["draws"] - mean for part, mean in zip(found, MEANS, strict=True)]
    assert len({tuple(part.tolist()) for part in noise}) == len(MEANS)
    for other in (Blocks(8).run("a", MEANS, Work()), Blocks(7).run("b", MEANS, Work())):
        assert not other[0]["draws"].equal(found[0]["draws"])
    # The seeds are written down: another version of Python or another machine has the same.
    assert Blocks(7).generator("a", 1).initial_seed() == 6959679067282411121


def test_a_generator_seeds_them():
    model = RNN(3, recurrent_dim=2)
    one, two = (blocks_of(generator(seed), model).seed for seed in (0, 1))
    assert one != two and one == blocks_of(generator(0), model).seed
    assert blocks_of(blocks := Blocks(3), model) is blocks


def test_interrupted_work_goes_on(tmp_path):
    journal, about = tmp_path / "work", {"data": "x"}
    whole = Blocks(1).run("a", MEANS, Work())
    first, second = Work(stop=30.0), Work()
    with pytest.raises(KeyboardInterrupt), Blocks(1, "cpu", journal, about) as blocks:
        blocks.run("a", MEANS, first)
    with Blocks(1, "cpu", journal, about) as blocks:
        same(blocks.run("a", MEANS, second), whole)
        assert journal.exists()
    assert (first.done, second.done) == (MEANS[:3], MEANS[3:])
    assert not journal.exists()


def test_killed_work_goes_on(tmp_path):
    """A process that is killed in the middle of a block has lost that block alone."""
    journal, about = tmp_path / "work", {"data": "x"}

    def dies():
        def function(mean, source):
            if mean == 20.0:
                os.kill(os.getpid(), signal.SIGKILL)
            return Work()(mean, source)

        with Blocks(1, "cpu", journal, about) as blocks:
            blocks.run("a", MEANS, function)

    process = get_context("fork").Process(target=dies)
    process.start()
    process.join(PATIENCE)
    assert process.exitcode == -signal.SIGKILL
    (journal / "a-1.pt").write_bytes(b"half of")  # as a machine that went down may leave it
    rest = Work()
    with Blocks(1, "cpu", journal, about) as blocks:
        same(blocks.run("a", MEANS, rest), Blocks(1).run("a", MEANS, Work()))
    assert rest.done == [10.0, *MEANS[2:]]


@pytest.mark.parametrize("about", [{"data": "y"}, {}, {"data": "x", "more": 1}])
def test_a_journal_about_something_else_is_dropped(tmp_path, about):
    journal = tmp_path / "work"
    with pytest.raises(KeyboardInterrupt), Blocks(1, "cpu", journal, {"data": "x"}) as blocks:
        blocks.run("a", MEANS, Work(stop=30.0))
    work = Work()
    with Blocks(1, "cpu", journal, about) as blocks:
        assert blocks.dropped == {"data": "x"}
        blocks.run("a", MEANS, work)
    assert work.done == MEANS
    assert Blocks(1, "cpu", journal, about).dropped is None
    assert Blocks(1, "cpu", journal, about).dropped is None
    (journal / "about.json").write_text("half of")  # as a machine that went down may leave it
    assert Blocks(1, "cpu", journal, about).dropped is None


def test_what_cannot_succeed_leaves_nothing(tmp_path):
    journal = tmp_path / "work"
    with pytest.raises(ValueError), Blocks(1, "cpu", journal, {}) as blocks:
        blocks.run("a", MEANS, Work(stop=30.0, error=ValueError))
    assert not journal.exists()


def test_progress_is_of_what_is_left(tmp_path):
    journal, told = tmp_path / "work", []
    with pytest.raises(KeyboardInterrupt), Blocks(1, "cpu", journal, {}) as blocks:
        blocks.run("a", MEANS, Work(stop=30.0))
    with Blocks(1, "cpu", journal, {}, lambda *words: told.append(words)) as blocks:

        def slow(mean, source):
            blocks.advance(4)
            return Work()(mean, source)

        blocks.run("a", MEANS, slow, [10, 10, 10, 10, 30])
    assert told == [(4, 40, "a"), (10, 40, "a"), (14, 40, "a"), (40, 40, "a")]


def rank(number: int, folder: Path) -> None:
    store = dist.FileStore(str(folder / "store"), 2)
    dist.init_process_group("gloo", rank=number, world_size=2, store=store)
    work = Work()
    with Blocks(1, "cpu", folder / "work", {}) as blocks:
        found = blocks.run("a", MEANS, work)
        dist.barrier()
    torch.save({"found": found, "done": work.done}, folder / f"{number}.pt")
    dist.destroy_process_group()


def test_two_processes_share_the_work_and_agree(tmp_path):
    """Two of five blocks are done before, by one process; two others do the rest."""
    with pytest.raises(KeyboardInterrupt), Blocks(1, "cpu", tmp_path / "work", {}) as blocks:
        blocks.run("a", MEANS, Work(stop=20.0))
    processes = [get_context("fork").Process(target=rank, args=(n, tmp_path)) for n in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE)
        assert process.exitcode == 0
    first, second = (torch.load(tmp_path / f"{n}.pt") for n in (0, 1))
    assert (first["done"], second["done"]) == ([20.0, 40.0], [30.0])
    whole = Blocks(1).run("a", MEANS, Work())
    same(first["found"], whole)
    same(second["found"], whole)
    assert not (tmp_path / "work").exists()
