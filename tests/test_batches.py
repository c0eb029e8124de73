"""Batches: nothing lost, nothing moved off the keyboard, the same every time."""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.data import DataLoader

from cgrnn.batches import Batches, moved
from data_prep import store


def rolls(seed=0):
    random = np.random.default_rng(seed)
    lengths = np.array([7, 3, 12, 1])
    frames = (random.random((23, 10)) < 0.3).astype(np.uint8)
    frames[:, [0, 9]] = 0
    return frames, lengths


def test_every_frame_comes_once_in_its_place():
    frames, lengths = rolls()
    for batches in (Batches(frames, lengths, 2), Batches(frames, lengths, 2, 5, 3, (0, 1))):
        seen = []
        for batch in batches:
            for roll, length, rows, shift in zip(
                batch.frames, batch.lengths, batch.rows, batch.shifts, strict=True
            ):
                own = rows[:length]
                seen += own.tolist()
                original = torch.from_numpy(frames[own.numpy()]).float()
                assert torch.equal(roll[:length], original.roll(int(shift), -1))
                assert not roll[length:].any()
        assert sorted(seen) == list(range(23))


def test_pieces_are_no_longer_than_asked_and_keep_their_order():
    frames, lengths = rolls()
    batches = Batches(frames, lengths, 3, segment_frames=5)
    ends = [(0, 5), (5, 7), (7, 10), (10, 15), (15, 20), (20, 22), (22, 23)]
    assert batches.pieces.tolist() == [list(pair) for pair in ends]
    assert len(batches) == 3


def test_transposition_keeps_every_note_and_uses_its_whole_range():
    frames, lengths = rolls()
    frames[7:10] = 0
    frames[7, 2] = frames[9, 8] = 1  # may move two down and one up
    shifts = set()
    for epoch in range(60):
        for batch in Batches(frames, lengths, 4, None, 5, (0, epoch)):
            for roll, row, shift in zip(batch.frames, batch.rows, batch.shifts, strict=True):
                if row[0] == 7:
                    shifts.add(int(shift))
                assert not (shift > 0 and roll[:, :shift].any())
                assert not (shift < 0 and roll[:, int(shift) :].any())
    assert shifts == {-2, -1, 0, 1}


def test_order_and_moves_follow_from_the_seed():
    frames, lengths = rolls()

    def shuffled(epoch):
        return [
            (batch.rows.tolist(), batch.shifts.tolist())
            for batch in Batches(frames, lengths, 2, None, 2, (3, epoch))
        ]

    assert shuffled(0) == shuffled(0)
    assert shuffled(0) != shuffled(1)


def test_processes_share_every_batch_out_and_move_it_alike():
    frames, lengths = rolls()
    how = (4, 5, 3, (0, 1), 0.0, 1.0)
    for whole, *parts in zip(
        Batches(frames, lengths, *how),
        *(Batches(frames, lengths, *how, (process, 2)) for process in range(2)),
        strict=True,
    ):
        theirs = {}
        for part in parts:
            assert part.sequences == len(whole.lengths) and part.share > 0
            assert part.share == float(part.lengths.sum()) / float(whole.lengths.sum())
            for n, length in enumerate(part.lengths):
                roll = part.frames[n, :length].tolist()
                theirs[int(part.rows[n, 0])] = roll, int(part.shifts[n])
        assert theirs == {
            int(whole.rows[n, 0]): (whole.frames[n, :length].tolist(), int(whole.shifts[n]))
            for n, length in enumerate(whole.lengths)
        }


def test_a_process_without_a_scored_frame_stands_by_with_the_longest_sequence():
    frames, lengths = rolls()  # of 7, 3, 12 and 1 frames
    how = (4, None, 0, None, 0.0, 1.0)
    shares = []
    for process in range(6):
        (batch,) = Batches(frames, lengths, *how, (process, 6), given_frames=1)
        assert batch.lengths.tolist() == [[7], [3], [12]][process] if process < 3 else [12]
        shares.append(batch.share)
    assert shares == [6 / 19, 2 / 19, 11 / 19, 0, 0, 0]


def test_moving_back_undoes_moving():
    frames = torch.rand(3, 4, 10)
    shifts = torch.tensor([2, 0, -3])
    assert torch.equal(moved(moved(frames, shifts), -shifts), frames)
    assert torch.equal(moved(frames, shifts)[0], frames[0].roll(2, -1))


def test_a_shuffled_batch_holds_sequences_of_like_length_in_changing_company():
    random = np.random.default_rng(0)
    lengths = random.integers(1, 200, 400)
    frames = np.zeros((lengths.sum(), 3), np.uint8)
    company = []
    for epoch in range(2):
        batches = list(Batches(frames, lengths, 16, shuffle=(0, epoch)))
        rows = torch.cat([batch.rows[batch.rows > 0] for batch in batches])
        assert len(rows.unique()) == len(rows) == lengths.sum() - 1
        cells = sum(batch.rows.numel() for batch in batches)
        assert cells < 1.25 * lengths.sum()  # nearly twice without
        company.append({frozenset(batch.rows[:, 0].tolist()) for batch in batches})
        sizes = [float(batch.lengths.float().mean()) for batch in batches]
        assert sizes != sorted(sizes)
    assert len(company[0] & company[1]) <= 1


def test_batches_from_disk_by_workers_are_those_from_memory(tmp_path):
    frames, lengths = rolls()
    ends = np.cumsum(lengths)
    pieces = [(str(end), frames[end - n : end]) for end, n in zip(ends, lengths, strict=True)]
    store.write(tmp_path / "data.h5", {"train": pieces}, kind="binary", frame_rate=4.0)
    stored = store.read(tmp_path / "data.h5", "train", in_memory=False).splits["train"]
    assert isinstance(stored.frames, store.StoredFrames)
    how = (2, 5, 3, (0, 1))
    here = list(Batches(frames, lengths, *how))
    loader = DataLoader(
        Batches(stored.frames, stored.lengths, *how), batch_size=None, num_workers=2
    )
    for mine, theirs in zip(here, loader, strict=True):
        for one, other in zip(mine._tensors(), theirs._tensors(), strict=True):
            assert torch.equal(one, other)


def test_frames_come_normalised_and_the_padding_stays_zero():
    frames, lengths = np.random.default_rng(0).normal(3, 2, (10, 4)).astype("f4"), np.array([7, 3])
    (batch,) = Batches(frames, lengths, 2, mean=3.0, std=2.0)
    assert torch.allclose(batch.frames[0], torch.from_numpy((frames[:7] - 3) / 2), atol=1e-6)
    assert not batch.frames[1, 3:].any()
