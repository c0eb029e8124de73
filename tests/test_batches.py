"""Batches: nothing lost, nothing moved off the keyboard, the same every time."""

from __future__ import annotations

import numpy as np
import torch

from cgrnn.batches import Batches, moved


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
    assert batches.pieces == [(0, 5), (5, 7), (7, 10), (10, 15), (15, 20), (20, 22), (22, 23)]
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


def test_moving_back_undoes_moving():
    frames = torch.rand(3, 4, 10)
    shifts = torch.tensor([2, 0, -3])
    assert torch.equal(moved(moved(frames, shifts), -shifts), frames)
    assert torch.equal(moved(frames, shifts)[0], frames[0].roll(2, -1))
