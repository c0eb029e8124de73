"""Every model through the command, on each kind of frames that it is for."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Command

from cgrnn.models import MODELS
from cgrnn.settings import MODEL_OPTIONS
from data_prep import notes, store
from data_prep.chorales import corpus_paths, read_chorale
from data_prep.plucked import pluck
from evaluation import ais

EACH = [(name, kind) for name, model in MODELS.items() for kind in model.kinds]
SMALL = {
    **{"recurrent_dim": 5, "hidden_dim": 4, "latent_dim": 3, "feature_dim": 4, "mlp_dim": 4},
    **{"cd_steps": 1, "baseline_dim": 4, "components": 2, "window": 4, "particles": 3},
}
QUICK = {"max_epochs": 2, "validate_every": 1, "batch_size": 4, "valid_frames": 10}
QUICK |= {"valid_chains": 2, "valid_levels": 3}


def flags(options: dict[str, Any]) -> list[str]:
    return [word for key, value in options.items() for word in (_flag(key), str(value))]


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small set of each kind."""
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    paths = {kind: folder / f"{kind}.h5" for kind in ("binary", "continuous", "notes")}
    for kind in ("binary", "continuous"):
        pieces = [random.normal(size=(7 + n % 4, 6)) for n in range(10)]
        if kind == "binary":
            pieces = [(piece > 0.3).astype(np.uint8) for piece in pieces]
        named = [(str(n), piece) for n, piece in enumerate(pieces)]
        splits = {"train": named[:6], "valid": named[6:8], "test": named[8:]}
        rate: dict[str, Any] = {"frame_rate": 4.0, "lowest_pitch": 60}
        if kind == "continuous":
            rate = {"sample_rate": 11025}
        store.write(paths[kind], splits, kind=kind, **rate)
    midi = folder / "midi"
    midi.mkdir()
    for n in range(8):
        notes.write_midi(
            midi / f"{n}.mid", random.integers(1, 6, 12), ["?", *map(str, range(60, 66))]
        )
    notes.prepare_notes(midi, paths["notes"])
    return paths


@pytest.mark.parametrize(("name", "kind"), EACH)
def test_trains_evaluates_and_generates(
    name: str, kind: str, data: dict[str, Path], tmp_path: Path, command: Command
) -> None:
    run = tmp_path / "run"
    own = {field.name for field in dataclasses.fields(MODEL_OPTIONS[name])}
    sizes = {key: value for key, value in SMALL.items() if key in own}

    def result(*words: object) -> dict[str, Any]:
        outcome = command(*words, "--json")
        assert outcome.code == 0, outcome.err
        found: dict[str, Any] = json.loads(outcome.out)
        return found

    words = ("--model", name, "--data", data[kind], "-o", run)
    trained = result("train", *words, *flags(sizes | QUICK))
    assert trained["epochs"] == 2 and np.isfinite(trained["valid"])
    how = ("--chains", 3, "--levels", 4, "--samples", 1, "--sweeps", 3, "--paths", 3)
    scored = result("evaluate", run, *how)
    likelihood = scored["log_likelihood"]
    assert np.isfinite(likelihood["per_frame"])
    assert likelihood["kind"] == MODELS[name]().likelihood_kind
    assert (likelihood["bounds"] is not None) == (likelihood["kind"] == "lower bound")
    measure = "rmse" if kind == "continuous" else "accuracy"
    assert scored[measure].keys() == {"prediction", "reconstruction"}
    made = result("generate", run, "-o", tmp_path / "new", "--frames", 5, "--count", 2)
    suffix = ".wav" if kind == "continuous" else ".mid"
    assert [Path(file).suffix for file in made["files"]] == [suffix, suffix]
    assert all(Path(file).stat().st_size > 44 for file in made["files"])
    assert command("evaluate", run, *how).out.startswith("test split: ")


def test_a_model_for_other_frames_is_refused(
    data: dict[str, Path], tmp_path: Path, command: Command
) -> None:
    for name, kind in (("rnn-nade", "continuous"), ("lgssm", "binary"), ("cgrnn", "notes")):
        outcome = command("train", "--model", name, "--data", data[kind], "-o", tmp_path / "run")
        assert outcome.code == 2 and f"holds {kind} frames" in outcome.err
        assert outcome.err.count("\n") == 1 and not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def real() -> dict[str, torch.Tensor]:
    """Openings of chorales as rolls, of plucked strings as audio frames, and of tunes as notes."""
    paths = [path for path in corpus_paths() if path.suffix == ".mxl"]
    rolls = []
    for path in paths:
        try:
            roll = read_chorale(path)
        except ValueError:
            continue
        if len(roll) >= 32:
            rolls.append(roll[:32])
        if len(rolls) == 12:
            break
    binary = torch.from_numpy(np.stack(rolls)).float()
    random = np.random.default_rng(0)
    strings = np.stack([pluck(pitch, random)[:960].reshape(32, 30) for pitch in range(50, 62)])
    continuous = torch.from_numpy(strings / strings.std()).float()
    highest = (
        torch.arange(88).expand(binary.shape).masked_fill(binary == 0, 0).amax(-1, keepdim=True)
    )
    return {"binary": binary, "continuous": continuous, "notes": highest.float()}


@pytest.mark.parametrize(("name", "kind"), EACH)
def test_training_raises_the_likelihood_of_real_frames(
    name: str, kind: str, real: dict[str, torch.Tensor]
) -> None:
    frames = real[kind]
    torch.manual_seed(0)
    own = {field.name for field in dataclasses.fields(MODEL_OPTIONS[name])}
    sizes = {key: 16 for key in SMALL if key in own and key.endswith("_dim")}
    model = MODELS[name](visible_dim=frames.shape[2], visible=kind, **sizes)
    if kind == "binary":
        model.set_marginals((frames.mean((0, 1)) + 0.01) / 1.02)
    lengths = torch.full((len(frames),), frames.shape[1])
    chosen = torch.rand(frames.shape[:2]) < 0.2

    def score() -> float:
        model.eval()
        generator = torch.Generator().manual_seed(1)

        def estimate(density: Any, generator: torch.Generator) -> Any:
            return ais.log_partition(density, chains=5, levels=100, generator=generator)

        return float(model.scores(frames, lengths, chosen, estimate, generator).log_prob.mean())

    before = score()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(40):
        model.train()
        optimizer.zero_grad()
        model.loss(frames, lengths).backward()
        optimizer.step()
    assert score() > before + 0.3
