"""An RBM of binary units trained by one sweep a step, against scikit-learn and learnergy.

An epoch of 10,000 frames in float32, 128 visible and 250 hidden units, batches of 100, plain SGD.
scikit-learn keeps its chains from step to step, the others begin them at the data: the same work.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import torch
from harness import Row, alternating, apart, peaks
from torch import Tensor

from cgrnn.layers import BernoulliRBM
from samplers import contrastive_loss

VISIBLE, HIDDEN, BATCH, RATE = 128, 250, 100, 0.01

Epoch = Callable[[], object]


def rows(quick: bool) -> list[Row]:
    """Samples a second against each peer."""
    count, rounds = (500, 1) if quick else (10_000, 5)
    frames = _frames(count)
    peers = {"scikit-learn, float32": ("sklearn", _scikit), "learnergy": ("learnergy", _learnergy)}
    there = {name: make(frames) for name, (module, make) in peers.items() if find_spec(module)}
    taken = alternating({"ours": _ours(frames), **there}, rounds)
    peak = apart("rbm_peers:memory", count=count)
    return [
        Row(
            f"RBM, CD-1 {VISIBLE} → {HIDDEN}",
            count / taken["ours"],
            name,
            count / taken[name] if name in there else None,
            "samples/s",
            peak,
            "" if name in there else "not installed: pip install cgrnn[benchmarks]",
        )
        for name in peers
    ]


def memory(count: int) -> float:
    frames = _frames(count)
    _ours(frames[:BATCH])()
    return peaks([_ours(frames)])[0]


def _frames(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(count, VISIBLE, generator=generator) < 0.04).float()


def _ours(frames: Tensor) -> Epoch:
    layer = BernoulliRBM(VISIBLE, HIDDEN)
    optimizer = torch.optim.SGD(layer.parameters(), lr=RATE)

    def epoch() -> None:
        for v in frames[torch.randperm(len(frames))].split(BATCH):
            optimizer.zero_grad()
            contrastive_loss(layer(None), v, 1).mean().backward()
            optimizer.step()

    return epoch


def _scikit(frames: Tensor) -> Epoch:
    from sklearn.neural_network import BernoulliRBM as Peer

    data = frames.numpy()
    peer = Peer(HIDDEN, learning_rate=RATE, batch_size=BATCH, n_iter=1)
    return lambda: peer.fit(data)


def _learnergy(frames: Tensor) -> Epoch:
    from learnergy.models.bernoulli import RBM as Peer

    peer = Peer(VISIBLE, HIDDEN, learning_rate=RATE)
    data = torch.utils.data.TensorDataset(frames, frames)
    return lambda: peer.fit(data, batch_size=BATCH, epochs=1)
