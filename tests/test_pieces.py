"""Losses taken in pieces are the losses of all frames at once, and so are their gradients."""

from __future__ import annotations

import pytest
import torch
from densities import generator

from cgrnn.models import pieces
from cgrnn.models.pieces import mean_in_pieces


@pytest.mark.parametrize("frames", [1, 5, 11, 12])
def test_pieces_are_the_whole(frames, monkeypatch):
    monkeypatch.setattr(pieces, "PIECE", 5)
    random = generator(0)
    contexts, weight = (
        torch.randn(*shape, dtype=torch.float64, generator=random).requires_grad_()
        for shape in ((4, 6, 3), (3, 2))
    )
    unused, frozen = torch.ones(2, requires_grad=True), torch.tensor([2.0, 3.0])
    index = torch.randperm(24, generator=random)[:frames]
    places = (index // 6, index % 6)
    sizes = []

    def loss(context, places):
        sizes.append(len(context))
        return ((context @ weight) ** 2 * frozen).sum(-1) * places[1]

    inputs = [contexts, weight, unused]
    found = mean_in_pieces(loss, contexts, places, [weight, unused, frozen])
    gradients = torch.autograd.grad(3 * found, inputs, allow_unused=True)
    assert sum(sizes) == frames and max(sizes) <= 5 and max(sizes) - min(sizes) <= 1
    expected = loss(contexts[places], places).mean()
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    wanted = torch.autograd.grad(3 * expected, inputs, allow_unused=True)
    for mine, theirs in zip(gradients[:2], wanted[:2], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-14)
    assert not gradients[2].any() and wanted[2] is None
