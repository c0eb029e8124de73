"""Frames independent in time: the past tells nothing, and no model may seem to predict them.

Reconstruction, which has seen the frame, may score anything; the papers call it prediction.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from cgrnn.batches import Batches
from cgrnn.models import MODELS
from cgrnn.settings import MODEL_OPTIONS
from evaluation.accuracy import accuracies, errors

KEYS, FRAMES, SEQUENCES = 8, 20, 100
PROBABILITY = np.linspace(0.1, 0.6, KEYS)
SIZES = {"recurrent_dim": 12, "hidden_dim": 8, "latent_dim": 4, "feature_dim": 12, "mlp_dim": 12}


def frames(kind: str, seed: int) -> torch.Tensor:
    random = np.random.default_rng(seed)
    shape = (SEQUENCES, FRAMES, KEYS)
    if kind == "binary":
        return torch.from_numpy(random.random(shape) < PROBABILITY).float()
    return torch.from_numpy(random.normal(size=shape)).float()


def trained(name: str, kind: str) -> torch.nn.Module:
    torch.manual_seed(0)
    own = {field.name for field in dataclasses.fields(MODEL_OPTIONS[name])}
    sizes = {key: value for key, value in SIZES.items() if key in own}
    model = MODELS[name](visible_dim=KEYS, visible=kind, **sizes)
    data = frames(kind, 0)
    if kind == "binary":
        model.set_marginals(data.mean((0, 1)))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(40):
        optimizer.zero_grad()
        model.loss(data, torch.full((SEQUENCES,), FRAMES)).backward()
        optimizer.step()
    model.sweeps = 50
    return model.eval()


def measured(model: torch.nn.Module, kind: str, measure) -> dict[str, float]:
    test = frames(kind, 1)
    lengths = np.full(SEQUENCES, FRAMES)
    batches = Batches(test.flatten(0, 1).numpy(), lengths, 25)
    return measure(model, batches, 5, torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", [name for name in MODELS if "binary" in MODELS[name].kinds])
def test_no_model_predicts_better_than_who_knows_the_frequencies(name: str) -> None:
    truth, p = frames("binary", 1).flatten(0, 1).numpy(), PROBABILITY
    oracle = (truth * p).sum() / (truth + p - truth * p).sum()
    found = measured(trained(name, "binary"), "binary", accuracies)
    # Five draws of 16,000 cells, about a third of the notes right: deviation below 0.005.
    assert found["prediction"] == pytest.approx(oracle, abs=0.03)
    assert found["reconstruction"] > found["prediction"] - 0.03


@pytest.mark.parametrize("name", [n for n in MODELS if "continuous" in MODELS[n].kinds])
def test_nor_continuous_frames(name: str) -> None:
    found = measured(trained(name, "continuous"), "continuous", errors)
    # A draw from the truth has the error √2; one that knows less of the spread can have less, down
    # to 1 for the mean itself, and a model not yet trained to the end has a little more.
    assert 1.3 < found["prediction"] < 1.6
    assert found["reconstruction"] < found["prediction"] + 0.05
