"""Nats of normalised frames against the density of the frames as their file has them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Command
from densities import generator
from scipy.stats import norm

from cgrnn import load, units
from cgrnn.layers import IndependentGaussian
from data_prep import store

MEAN, STD, V = 3.0, 0.02, 5


def test_nats_in_the_units_of_the_file_are_those_of_the_changed_variable() -> None:
    torch.manual_seed(0)
    density = IndependentGaussian(V, 2).double()(torch.randn(V, 2, dtype=torch.float64))
    x = density.sample((), generator(0))
    seen = density.log_prob(x)
    centre, deviation = MEAN + STD * density.mean, STD * density.log_deviation.exp()
    of_file = norm.logpdf(MEAN + STD * x, centre.detach(), deviation.detach()).sum(-1)
    assert (seen + units.to_file_units(V, STD)).detach().numpy() == pytest.approx(of_file)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames far from mean 0 and deviation 1, of units that differ."""
    path, random = tmp_path_factory.mktemp("sound") / "sound.h5", np.random.default_rng(0)
    spread = STD * np.arange(1, V + 1)

    def frames() -> np.ndarray:
        return random.normal(MEAN, spread, size=(9, V)).astype("f4")

    splits = {name: [(f"{name}{n}", frames()) for n in range(3)] for name in store.SPLITS}
    store.write(path, splits, kind="continuous", sample_rate=8000)
    return path


@pytest.fixture
def evaluated(command: Command, sound: Path, tmp_path: Path) -> dict[str, Any]:
    words = ["--model", "rnn", "--data", sound, "-o", tmp_path / "run", "--recurrent-dim", 3]
    outcome = command("train", *words, "--max-epochs", 2, "--validate-every", 1)
    assert outcome.code == 0, outcome.err
    assert outcome.err.count(" nats a normalised frame (=)") == 2
    assert outcome.out.count(" nats per frame of normalised frames, (v - mean)/std") == 1
    outcome = command("evaluate", tmp_path / "run", "--horizon", 2, "--samples", 1, "--json")
    assert outcome.code == 0, outcome.err
    found: dict[str, Any] = json.loads(outcome.out)
    return found


def test_evaluate_says_the_unit_and_how_to_leave_it(
    evaluated: dict[str, Any], sound: Path, tmp_path: Path
) -> None:
    scores, shift = evaluated["log_likelihood"], evaluated["log_likelihood"]["nats_to_file_units"]
    assert scores["unit"] == "nats per frame of normalised frames, (v - mean)/std"
    data = store.read(sound)
    train, test = (np.float64(data.splits[name].frames) for name in ("train", "test"))
    mean, std = train.mean(), train.std()
    # The floor, with each unit's moments in the units of the file.
    floor = norm.logpdf(test, train.mean(0), train.std(0)).sum(-1)
    assert evaluated["floors"][0]["per_frame"] + shift == pytest.approx(floor.mean(), abs=1e-3)
    # The model, its Gaussians moved to the units of the file.
    frames = torch.tensor((test - mean) / std, dtype=torch.float32).view(3, 9, V)
    with torch.no_grad():
        density = load(tmp_path / "run").density(frames)
    centre, deviation = mean + std * density.mean, std * density.log_deviation.exp()
    scored = norm.logpdf(test.reshape(3, 9, V), centre.numpy(), deviation.numpy()).sum(-1)
    assert scores["per_frame"] + shift == pytest.approx(scored.mean(), abs=1e-3)


def test_what_is_shown_of_it(evaluated: dict[str, Any], command: Command, tmp_path: Path) -> None:
    run, number = tmp_path / "run", evaluated["log_likelihood"]["nats_to_file_units"]
    told = f"for those of the file add {number:.1f} a frame"
    assert number > 1  # no "-" that would be written otherwise
    shown = command("evaluate", run, "--horizon", 2, "--samples", 1).out
    assert "log-likelihood in nats per frame of normalised frames, (v - mean)/std" in shown
    assert told in shown
    compared = command("compare", run).out
    assert "nats per normalised frame" in compared and told in compared
    assert command("plot", "energy", run).code == 0


def test_binary_frames_are_not_normalised(
    command: Command, small_run: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(small_run, tmp_path / "run")
    words = ["--chains", 2, "--levels", 4, "--stderr", 9, "--sweeps", 3, "--samples", 1]
    outcome = command("evaluate", run, *words, "--json")
    scores = json.loads(outcome.out)["log_likelihood"]
    assert (scores["unit"], scores["nats_to_file_units"]) == ("nats per frame", 0.0)
    assert "not the bias of annealing" in scores["stderr_covers"]
