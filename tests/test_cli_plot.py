"""`cgrnn plot` on runs of every model: figures, or one line that says why there is none."""

from __future__ import annotations

import csv
import inspect
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from conftest import Command, write_music

from cgrnn.checkpoint import describe, open_run
from cgrnn.cli.plot import Kind
from cgrnn.cli.runs import open_data
from cgrnn.models import MODELS
from data_prep import notes, store
from evaluation import figures, inside

Refused = Callable[..., None]
SIZES = {"recurrent_dim": 5, "hidden_dim": 4, "latent_dim": 3, "feature_dim": 4, "mlp_dim": 4}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small set of each kind."""
    folder, random = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    paths = {kind: folder / f"{kind}.h5" for kind in ("binary", "continuous", "notes")}
    write_music(paths["binary"])
    sounds = [(str(n), random.normal(size=(9, 6)).astype("f4")) for n in range(3)]
    splits = {name: [sound] for name, sound in zip(store.SPLITS, sounds, strict=True)}
    store.write(paths["continuous"], splits, kind="continuous", sample_rate=8000)
    midi = folder / "midi"
    midi.mkdir()
    for n in range(4):
        tune = random.integers(1, 6, 12)
        notes.write_midi(midi / f"{n}.mid", tune, ["?", *map(str, range(60, 66))])
    notes.prepare_notes(midi, paths["notes"])
    return paths


def untrained(run: Path, name: str, file: Path) -> Path:
    """A run as training leaves it, its weights as they begin."""
    opened = open_data(str(file))
    attributes = {key: value for key, value in opened.attributes.items() if key != "seed"}
    kind = attributes["kind"]
    known = inspect.signature(MODELS[name]).parameters
    if "options" in known:  # a model that hands options on
        known = {**known, **inspect.signature(MODELS["cgrnn"]).parameters}
    options: dict[str, Any] = {key: size for key, size in SIZES.items() if key in known}
    options |= {"visible_dim": opened.splits["train"].frames.shape[1], "visible": kind}
    torch.manual_seed(0)
    model = MODELS[name](**options)
    head = describe(name, options, attributes | {"path": str(file)}, {}, {})
    (run / "checkpoints").mkdir(parents=True)
    weights = {f"model.{key}": value for key, value in model.state_dict().items()}
    content = {"cgrnn": head, "state_dict": weights, "epoch": 0}
    torch.save(content, run / "checkpoints" / "best.ckpt")
    rows = [{"epoch": n, "train_loss": 1.0 / n, "valid_log_likelihood": -n} for n in (1, 2)]
    with (run / "metrics.csv").open("w", newline="") as lines:
        writer = csv.DictWriter(lines, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    curve = {"steps": [1, 2], "stderr": [0.1, 0.1], "frames": [9, 9]}
    measure = "rmse" if kind == "continuous" else "accuracy"
    found = {
        measure: {"prediction": 0.5, "reconstruction": 0.6},
        "recursive": curve | {measure: [0.5, 0.4]},
        "data": {"fingerprint": attributes["fingerprint"]},
        "split": "test",
    }
    (run / "evaluation.json").write_text(json.dumps(found))
    return run


def expected(name: str, kind: str, figure: str) -> bool:
    """Whether a model over a kind of frames has this figure."""
    energy = name in ("cgrnn", "rnn-ssrbm", "rnn-rbm")
    return {
        "pianoroll": kind == "binary",
        "similarity": kind == "binary",
        "statistics": False,  # of a folder of music
        "reconstruction": kind != "notes",
        "precision": energy and name != "rnn-rbm" and kind == "continuous",
        "weights": energy,
        "filters": energy or "nade" in name,
    }.get(figure, True)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that commands draw. To write one takes a second: `figures.save` is spared."""
    found: list[Any] = []

    def spare(figure: Any, file: Path, kind: str) -> None:
        found.append(figure)
        file.write_bytes(b"figure")

    monkeypatch.setattr(figures, "save", spare)
    return found


@pytest.mark.parametrize(
    ("name", "kind"), [("cgrnn", "binary"), *((name, MODELS[name].kinds[-1]) for name in MODELS)]
)
def test_every_model_is_plotted_or_refused_in_one_line(
    name: str,
    kind: str,
    data: dict[str, Path],
    tmp_path: Path,
    command: Command,
    drawn: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(MODELS[name], "sweeps", 2)
    annealed = inside._annealed
    monkeypatch.setattr(
        inside, "_annealed", lambda density, chains, levels, *rest: annealed(density, 4, 5, *rest)
    )
    run = untrained(tmp_path / "run", name, data[kind])
    alike = ("curves", "recursive") if name != "cgrnn" else ()  # they look at no model
    for figure in sorted({*get_args(Kind)} - {*alike}):
        outcome = command("plot", figure, run, "--json")
        if expected(name, kind, figure):
            assert outcome.code == 0, (figure, outcome.err)
            files = [run / "figures" / f"{figure}.{suffix}" for suffix in ("png", "pdf")]
            assert json.loads(outcome.out) == {"files": list(map(str, files))}
            assert all(file.is_file() for file in files) and drawn.pop() is drawn.pop()
        else:
            assert outcome.code == 2 and outcome.err.count("\n") == 1, (figure, outcome.err)
            assert not drawn and not list((run / "figures").glob(f"{figure}.*"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, data: dict[str, Path]) -> Path:
    """A folder of untrained runs."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("cgrnn", "vrnn", "note-rnn"):
        for kind in MODELS[name].kinds:
            untrained(folder / f"{name}-{kind}", name, data[kind])
    return folder


def test_files_are_of_the_format_that_their_name_says(
    runs: Path, tmp_path: Path, command: Command
) -> None:
    run = shutil.copytree(runs / "cgrnn-binary", tmp_path / "run")
    done = command("plot", "activations", run)
    assert done.code == 0 and done.out.count("wrote ") == 2
    assert (run / "figures" / "activations.png").read_bytes().startswith(b"\x89PNG")
    assert (run / "figures" / "activations.pdf").read_bytes().startswith(b"%PDF")
    for suffix, start in (("png", b"\x89PNG"), ("pdf", b"%PDF")):
        file = tmp_path / f"mine.{suffix}"
        assert json.loads(command("plot", "curves", run, "-o", file, "--json").out) == {
            "files": [str(file)]
        }
        assert file.read_bytes().startswith(start)
    assert not (run / "figures" / "curves.png").exists()


def test_several_runs_go_into_one_figure(
    runs: Path, tmp_path: Path, command: Command, drawn: list[Any]
) -> None:
    pair = [runs / "cgrnn-binary", runs / "vrnn-binary"]
    for kind in ("activations", "curves", "recursive"):
        assert command("plot", kind, *pair, "-o", tmp_path / "both.png").code == 0
    features, curves, recursive = drawn
    titles = [axis.get_title(loc="left") for axis in features.axes[:3]]
    assert titles == [
        "Frames",
        "cgrnn-binary (cgrnn): E[h⊙s | v, u]",
        "vrnn-binary (vrnn): posterior mean of z",
    ]
    labels = [line.get_label() for line in curves.axes[1].lines]
    assert labels == ["cgrnn-binary: contrastive loss", "vrnn-binary: negative bound"]
    assert len(recursive.axes[0].get_legend().get_texts()) == 2


def test_precision_is_drawn_as_the_density_has_it(
    runs: Path, tmp_path: Path, command: Command, drawn: list[Any]
) -> None:
    run = runs / "cgrnn-continuous"
    words = ("plot", "precision", run, "--frames", "8,2", "-o", tmp_path / "new.pdf")
    assert command(*words).code == 0
    trained = open_run(run)
    model, data = trained.model, store.read(trained.data["path"], "test")
    mean, std = data.attributes["mean"], data.attributes["std"]
    frames = (torch.from_numpy(data.splits["test"].sequence(0)).float() - mean) / std
    with torch.no_grad():
        density = model.density(frames[None])[0, [8, 2]]  # type: ignore[operator]
        on = (torch.sigmoid(density.hidden_logits(frames[[8, 2]])) > 0.5).float()
        precision = density.precision(on)
    for axis, matrix in zip(drawn[0].axes[:2], precision, strict=True):
        assert np.array_equal(np.asarray(axis.images[0].get_array()), matrix.numpy())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("curves {cgrnn-binary} -o new.svg", ["new.svg", ".png or .pdf"]),
        ("activations {cgrnn-binary} {vrnn-binary}", ["several", "-o"]),
        ("precision {cgrnn-binary} {vrnn-binary} -o a.png", ["one run", "activations"]),
        ("activations {cgrnn-binary} {vrnn-continuous} -o a.png", ["another data set", "--data"]),
        ("recursive {cgrnn-binary} {vrnn-continuous} -o a.png", ["other data", "plot them apart"]),
        ("precision {cgrnn-binary} -o a.png", ["cgrnn: no conditional", "binary", "independent"]),
        ("precision {cgrnn-continuous} --frames 9 -o a.png", ["--frames", "0 to 8, got 9"]),
        ("weights {cgrnn-binary} --frames x -o a.png", ["--frames", "0,60,140", "got x"]),
        ("pianoroll {cgrnn-continuous} -o a.png", ["lowest_pitch", "cgrnn plot reconstruction"]),
        ("reconstruction {note-rnn-notes} -o a.png", ["classes", "cgrnn plot energy"]),
        ("filters {vrnn-binary} -o a.png", ["vrnn", "cgrnn, rnn-ssrbm"]),
        ("weights {vrnn-binary} -o a.png", ["vrnn", "no partition function"]),
        ("activations {cgrnn-binary} --index 2 -o a.png", ["--index", "0 to 1"]),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    refused: Refused, runs: Path, words: str, says: list[str]
) -> None:
    named = {run.name: run for run in runs.iterdir()}
    refused("plot", *(word.format(**named) for word in words.split()), says=tuple(says))


def test_a_run_without_recursive_accuracies_is_told_of(
    refused: Refused, runs: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(runs / "cgrnn-binary", tmp_path / "run")
    (run / "evaluation.json").write_text("{}")
    refused("plot", "recursive", run, says=("evaluation.json", "cgrnn evaluate"))
    (run / "evaluation.json").write_text("{")
    refused("plot", "recursive", run, says=("evaluation.json", "make it again"))


def test_statistics_of_music_stand_beside_the_training_set_s(
    command: Command, drawn: list[Any], small_run: Path, tmp_path: Path
) -> None:
    folders = [tmp_path / "cold", tmp_path / "hot"]
    for folder, temperature in zip(folders, (0.5, 2.0), strict=True):
        words = ["--sweeps", 3, "--frames", 9, "--temperature", temperature]
        assert command("generate", small_run, "-o", folder, *words).code == 0
    outcome = command("plot", "statistics", *folders, "-o", tmp_path / "both.png")
    assert outcome.code == 0, outcome.err
    (legend,) = drawn[0].legends
    assert [text.get_text() for text in legend.get_texts()] == ["training set", "cold", "hot"]
    counted = json.loads((folders[1] / "statistics.json").read_text())["generated"]["histograms"]
    bars = drawn[0].axes[0].containers[2]
    assert [bar.get_height() for bar in bars] == pytest.approx(counted["notes_per_frame"])
