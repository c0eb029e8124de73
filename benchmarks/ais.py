"""Annealed importance sampling at the published setting: 100 chains × 100 levels, 250 hidden units.

    python benchmarks/ais.py

One sequence of 240 frames of 128 keys, 4 % of them on, took the published code 17.1 s and 0.73 GB,
one of 147 frames of 150 samples 12.0 s, on two quiet cores that multiplied 1024³ in 9.75 ms. Ours
is measured against its matrix products alone (two a chain-level, four for continuous frames), and
against the published time at equal speed of products: 17.1 s times the time of 1024³ here over
that there.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from harness import Row, alternating, peaks

from cgrnn.arithmetic import use_fast_products
from cgrnn.layers import BinarySpikeSlabRBM, GaussianSpikeSlabRBM
from evaluation import ais
from samplers import fused

PUBLISHED = {"binary": 17.1, "continuous": 12.0}
PUBLISHED_PRODUCT = 9.75e-3
SETTINGS: dict[str, tuple[Any, int, int]] = {
    "binary": (BinarySpikeSlabRBM, 240, 128),
    "continuous": (GaussianSpikeSlabRBM, 147, 150),
}
CHAINS, LEVELS, HIDDEN = 100, 100, 250
ROUNDS = 5


def density(kind: str, sequences: int = 1) -> Any:
    """The densities of all frames of so many sequences."""
    layer_class, frames, visible = SETTINGS[kind]
    generator = torch.Generator().manual_seed(0)
    layer = layer_class(visible, HIDDEN, context_dim=8).requires_grad_(False)
    layer.W.normal_(std=0.1, generator=generator)
    if kind == "binary":
        layer.visible_bias.fill_(float(torch.logit(torch.tensor(0.04))))
    return layer(torch.randn(sequences * frames, 8, generator=generator))


def products(kind: str) -> None:
    """Those of all levels, in pieces as large as serve the library best."""
    _, frames, visible = SETTINGS[kind]
    piece, couplings = 2000, torch.rand(visible, HIDDEN)
    v, x = torch.rand(piece, visible), torch.rand(piece, HIDDEN)
    to_hidden, to_visible = torch.empty(piece, HIDDEN), torch.empty(piece, visible)
    times = frames * CHAINS * LEVELS // piece * (1 if kind == "binary" else 2)
    for _ in range(times):
        torch.mm(v, couplings, out=to_hidden)
        torch.mm(x, couplings.t(), out=to_visible)


def rows() -> list[Row]:
    square, found = torch.randn(1024, 1024), []
    for kind, published in PUBLISHED.items():
        one = density(kind)
        anneal = partial(ais.log_partition, one, CHAINS, LEVELS, schedule="linear")

        def tensor_by_tensor(task: Any = anneal) -> None:
            with fused.disabled():
                task()

        taken = alternating(
            {
                "ours": anneal,
                "products": partial(products, kind),
                "square": lambda: [square @ square for _ in range(10)],
            },
            ROUNDS,
        )
        slow = alternating({"slow": tensor_by_tensor}, 1)["slow"]
        memory, eight = peaks([anneal, partial(ais.log_partition, density(kind, 8), CHAINS, 20)])
        rate = one.batch_shape[0] * CHAINS * LEVELS / taken["ours"] / 1e6
        name, equal = f"AIS {kind}", published * taken["square"] / 10 / PUBLISHED_PRODUCT
        found += [
            Row(
                name,
                taken["ours"],
                "its products alone",
                taken["products"],
                peak_memory_mb=memory,
                note=f"{rate:.2f} M chain-levels a second; eight sequences at once: {eight} MB",
            ),
            Row(name, taken["ours"], "tensor by tensor", slow),
            Row(
                name,
                taken["ours"],
                "published, at equal speed of products",
                equal,
                note=f"{published} s where 1024³ took {1e3 * PUBLISHED_PRODUCT} ms; "
                f"{100 * taken['square']:.1f} ms here",
            ),
        ]
    return found


def main() -> None:
    use_fast_products()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for row in rows():
        print(
            f"{row.name}: {row.ours:.2f} s, {row.ratio:.3f} of {row.against} "
            f"({row.reference:.2f} s); {row.peak_memory_mb} MB; {row.note}"
        )


if __name__ == "__main__":
    main()
