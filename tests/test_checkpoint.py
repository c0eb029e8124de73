"""Checkpoints: they give the model back, carry all that is needed, and run no code."""

import dataclasses
import json
import pickle
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Command

import cgrnn
from cgrnn import checkpoint
from cgrnn.models import MODELS
from cgrnn.settings import MODEL_OPTIONS, TrainingOptions
from cgrnn.training import Training, fit, marginals
from data_prep import store
from evaluation import ais

Refused = Callable[..., None]
SCORE = ("--chains", 3, "--levels", 4, "--samples", 1)


@pytest.mark.parametrize("name", MODEL_OPTIONS)
def test_loaded_model_is_the_one_trained(name: str, music: Path, tmp_path: Path) -> None:
    data = store.read(music)
    train, valid = data.splits["train"], data.splits["valid"]
    options = TrainingOptions(max_epochs=2, validate_every=1, batch_size=4, valid_frames=5)
    own = {field.name for field in dataclasses.fields(MODEL_OPTIONS[name])}
    small = {"recurrent_dim": 5, "mlp_dims": [3], "cell": "lstm", "hidden_dim": 4, "cd_steps": 2}
    sizes: dict[str, Any] = {key: value for key, value in small.items() if key in own}
    sizes["visible_dim"] = width = 1 if name == "note-rnn" else 6
    model = MODELS[name](**sizes)
    arrays = [np.asarray(split.frames)[:, :width] for split in (train, valid)]
    if model.visible == "binary":
        model.set_marginals(marginals([arrays[0]]))
    training = Training(
        model,
        (arrays[0], train.lengths),
        (arrays[1], valid.lengths),
        options,
        partial(ais.log_partition, chains=2, levels=3),
        checkpoint.describe(name, sizes, data.attributes, {}, {}),
    )
    before = {key: value.clone() for key, value in model.state_dict().items()}
    fit(training, tmp_path, False, lambda line: None, False)
    model.eval()
    model.kl_weight = type(model).kl_weight  # where the schedule stood is no part of the model
    loaded = cgrnn.load(tmp_path / "checkpoints" / "last.ckpt")
    assert type(loaded) is type(model) and not loaded.training
    assert loaded.state_dict().keys() == before.keys()
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key
    assert not all(torch.equal(loaded.state_dict()[key], value) for key, value in before.items())
    frames = torch.from_numpy(arrays[1][:4]).float()[None]
    for compute in (
        lambda m, g: m.loss(frames, torch.tensor([4]), g),
        lambda m, g: m.features(frames, g),
        lambda m, g: m.generate(3, 2, frames[0], g),
    ):
        one, other = (compute(m, torch.Generator().manual_seed(1)) for m in (model, loaded))
        assert torch.equal(one, other)


def test_a_run_gives_its_best_epoch(command: Command, music: Path, tmp_path: Path) -> None:
    """The likelihood of an RNN is exact, so the best score can be worked out anew."""
    words = ("--model", "rnn", "--data", music, "--recurrent-dim", 5, "--validate-every", 1)
    words += ("--learning-rate", 0.1, "--max-epochs", 25, "--batch-size", 4)  # it will overshoot
    outcome = command("train", *words, "-o", tmp_path / "run", "--json")
    result = json.loads(outcome.out)
    assert result["best_epoch"] < result["epochs"]
    valid = store.read(music).splits["valid"]
    model, scores = cgrnn.load(tmp_path / "run"), []
    for sequence in valid.sequences():
        frames = torch.from_numpy(sequence).float()[None]
        scores.append(model.log_likelihood(frames, torch.tensor([len(sequence)])).log_prob)
    assert torch.cat(scores).mean().item() == pytest.approx(result["valid"], abs=1e-6)
    assert checkpoint.open_run(tmp_path / "run").epoch == result["best_epoch"]


def test_moved_run_and_moved_data(
    command: Command,
    refused: Refused,
    small_run: Path,
    music: Path,
    tmp_path: Path,
) -> None:
    def figures(*words: object) -> dict[str, Any]:
        outcome = command("evaluate", *words, *SCORE, "--json")
        assert outcome.code == 0, outcome.err
        found: dict[str, Any] = json.loads(outcome.out)
        return {key: value for key, value in found.items() if key not in ("data", "command")}

    def music_of(run: Path, name: str) -> list[bytes]:
        assert command("generate", run, "-o", tmp_path / name, "--frames", 5).code == 0
        return [file.read_bytes() for file in sorted((tmp_path / name).glob("*.mid"))]

    run, moved, data = tmp_path / "run", tmp_path / "elsewhere" / "moved", tmp_path / "moved.h5"
    shutil.copytree(small_run, run)
    scores, pieces = figures(run), music_of(run, "one")
    moved.parent.mkdir()
    run.rename(moved)
    assert figures(moved) == scores
    assert music_of(moved, "two") == pieces and len(pieces) == 4
    forget_data(moved, tmp_path / "gone.h5")
    refused("evaluate", moved, says=("gone.h5", "--data"))
    shutil.copy(music, data)
    assert figures(moved, "--data", data) == scores
    assert figures(moved / "checkpoints" / "best.ckpt", "--data", data) == scores
    assert music_of(moved, "three") == pieces


def forget_data(run: Path, path: Path) -> None:
    """As if the run had been trained on a data file that has gone since."""

    def change(content: dict[str, Any]) -> None:
        content["cgrnn"]["data"]["path"] = str(path)

    for file in (run / "checkpoints").iterdir():
        rewrite(file, file, change)


def rewrite(source: Path, file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = torch.load(source, weights_only=True)
    change(content)
    torch.save(content, file)


class Code:
    """Pickled, it makes a file when it is read."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


def test_a_pickle_with_code_is_refused_and_not_run(refused: Refused, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    pickle.loads(pickle.dumps(Code(trap)))
    assert trap.exists()  # the trap works where pickles are trusted
    trap.unlink()
    (tmp_path / "code.ckpt").write_bytes(pickle.dumps(Code(trap)))
    torch.save({"cgrnn": {"format": 1}, "state_dict": Code(trap)}, tmp_path / "torch.ckpt")
    for name in ("code.ckpt", "torch.ckpt"):
        for words in (["evaluate", name], ["generate", name, "-o", "new"]):
            refused(*words, says=(name, "not a readable checkpoint", "train again"))
        with pytest.raises(ValueError, match="not a readable checkpoint"):
            cgrnn.load(tmp_path / name)
    assert not trap.exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c["cgrnn"].update(format=99), "format 99, this version reads format 2"),
        (lambda c: c["cgrnn"].update(model="nope"), "unknown model 'nope'; known: cgrnn"),
        (lambda c: c["cgrnn"].pop("options"), "damaged, has no options"),
        (lambda c: c.pop("state_dict"), "damaged, has no state_dict"),
        (lambda c: c.pop("cgrnn"), "not a checkpoint of cgrnn"),
        (lambda c: c["cgrnn"]["options"].update(hidden_dim=9), "weights do not fit"),
        (lambda c: c["cgrnn"]["options"].update(bogus=9), "weights do not fit"),
        (lambda c: c["state_dict"].pop("model.layer.W"), "weights do not fit"),
        (lambda c: c["state_dict"].clear(), "weights do not fit"),
    ],
)
def test_other_checkpoints_are_refused(
    refused: Refused, small_run: Path, tmp_path: Path, change: Any, says: str
) -> None:
    rewrite(small_run / "checkpoints" / "best.ckpt", tmp_path / "x.ckpt", change)
    refused("evaluate", "x.ckpt", says=("x.ckpt", says))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda file, good: file.write_bytes(b""), "not a readable checkpoint"),
        (lambda file, good: file.write_bytes(bytes(range(256))), "not a readable checkpoint"),
        (lambda file, good: file.write_text("C D E\n"), "not a readable checkpoint"),
        (lambda file, good: file.write_bytes(good[: len(good) // 2]), "not a readable checkpoint"),
        (lambda file, good: torch.save(torch.zeros(3), file), "not a checkpoint of cgrnn"),
        (lambda file, good: torch.save({"W": torch.zeros(3)}, file), "not a checkpoint of cgrnn"),
    ],
)
def test_files_that_are_no_checkpoints_are_refused(
    refused: Refused, small_run: Path, tmp_path: Path, make: Any, says: str
) -> None:
    shutil.copytree(small_run, tmp_path / "run")
    good = (tmp_path / "run" / "checkpoints" / "last.ckpt").read_bytes()
    for name in ("best", "last"):
        make(tmp_path / "run" / "checkpoints" / f"{name}.ckpt", good)
    refused("evaluate", "run", says=("best.ckpt", says))
    refused("generate", "run", "-o", "new", says=("best.ckpt", says))
    refused("train", "-o", "run", "--resume", "--max-epochs", 3, says=("last.ckpt", says))
