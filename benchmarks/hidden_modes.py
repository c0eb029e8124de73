"""Does any figure stand above what is proven, while a mode grows that the data never visit?

Trains by plain CD, without restarts, and after each epoch holds two figures against an upper bound
that is found independently of them: that of `evaluate` on test sequences, and that of validation.
The bound: long Gibbs chains from noise and from full frames; the frames where they end count one
by one in `log Z ≥ -F(w)`. A figure more than three standard errors above it must carry a warning
(of `evaluate`), or be said to miss what is proven (in validation, more than 0.05 above it).

    cgrnn prepare chorales -o chorales.h5
    python benchmarks/hidden_modes.py chorales.h5 --model rnn-ssrbm --epochs 30
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent))
from cgrnn.batches import Batches
from cgrnn.models import MODELS
from data_prep import store
from evaluation import ais, likelihood
from evaluation.blocks import Blocks
from samplers import chain

SEQUENCES, CONTEXTS, SWEEPS, POOL = 8, 20, 1000, 30


def log_z_at_least(density: Any) -> Tensor:
    """`max_w -F(w)` over a pool of frames that chains from noise and from full frames end at."""
    step = max(1, density.batch_shape[0] // CONTEXTS)
    few = density[torch.arange(0, density.batch_shape[0], step)]
    starts = [few.sample_noise(torch.Generator().manual_seed(n)) for n in range(4)]
    starts.append(torch.ones_like(starts[0]))
    ends = chain(few, torch.stack(starts), SWEEPS, torch.Generator().manual_seed(1)).flatten(0, 1)
    best = ends[(-few.free_energy(ends.view(len(starts), -1, ends.shape[1]))).flatten().argsort()]
    pool = torch.cat([best[-POOL:], ends[ends.sum(1).argsort()[-POOL:]]])
    return torch.stack(
        [-density.free_energy(w.expand(*density.batch_shape, -1)) for w in pool]
    ).amax(0)


@torch.no_grad()
def judged(model: Any, split: Any) -> tuple[str, bool]:
    """A line of the figures of a split, and whether one stands above its bound without a word."""
    count = int(split.lengths[:SEQUENCES].sum())
    batches = Batches(split.frames[:count], split.lengths[:SEQUENCES], batch_size=SEQUENCES)
    batch = batches[0]
    inside = model.scored(batch.lengths, batch.frames.shape[1])
    density = model.layer(model.contexts(batch.frames)[0][inside])
    least = log_z_at_least(density)
    bound = (-density.free_energy(batch.frames[inside]) - least).double()

    found = likelihood.evaluate(model, batches, 20, None, 0.05, Blocks(0))
    wrong = found.per_frame > float(bound.mean()) + 3 * found.stderr and not found.warnings

    chosen = inside & (torch.rand(inside.shape, generator=torch.Generator().manual_seed(0)) < 0.25)
    scored = model.scores(
        batch.frames,
        batch.lengths,
        chosen,
        lambda density, generator: ais.log_partition(density, 20, 1000, generator),
        torch.Generator().manual_seed(0),
    )
    its = bound[chosen[inside]]
    above = (scored.log_prob > its + 0.2) & ~scored.missed
    unsaid = bool(scored.log_prob.mean() > its.mean() + 0.05 and not scored.missed.any())
    astray = model.astray(
        batch.frames,
        batch.lengths,
        lambda density, generator: ais.draw(density, 4, 1000, generator),
        torch.Generator().manual_seed(1),
    )
    return (
        f"{found.kind} {found.per_frame:9.2f} ± {found.stderr:.2f}, own bound "
        f"{found.proven_at_most:9.2f}, independent bound {float(bound.mean()):9.2f}, "
        f"{len(found.warnings)} warnings | validation {float(scored.log_prob.mean()):9.2f}, bound "
        f"{float(its.mean()):9.2f}, missed {float(scored.missed.double().mean()):.0%}, unsaid on "
        f"{float(above.double().mean()):.0%} of its frames | astray "
        f"{astray:.0%}",
        wrong or unsaid,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", help="data set of `cgrnn prepare chorales`")
    parser.add_argument("--model", default="rnn-ssrbm")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--hidden-dim", type=int, default=60)
    parser.add_argument("--recurrent-dim", type=int, default=40)
    options = parser.parse_args()
    splits = store.read(options.data).splits
    torch.manual_seed(0)
    train = splits["train"]
    sizes = {"hidden_dim": options.hidden_dim, "recurrent_dim": options.recurrent_dim}
    model = MODELS[options.model](train.frames.shape[1], cd_steps=1, restarts=0.0, **sizes)
    model.set_marginals(torch.from_numpy((train.frames[:].sum(0) + 1) / (len(train.frames) + 2)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.003)
    wrong = 0
    for epoch in range(options.epochs):
        model.train()
        batches = Batches(train.frames, train.lengths, 16, shuffle=(0, epoch))
        for number in range(len(batches)):
            batch = batches[number]
            optimizer.zero_grad()
            model.loss(batch.frames, batch.lengths).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        text, amiss = judged(model.eval(), splits["test"])
        wrong += amiss
        print(f"epoch {epoch + 1:2d}: {text}{'  WRONG' if amiss else ''}", flush=True)
    print(
        f"{options.model}: {wrong} of {options.epochs} epochs with a figure above the bound, unsaid"
    )


if __name__ == "__main__":
    main()
