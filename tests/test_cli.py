"""The command: what it refuses, what it prints, and its files of options."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml
from conftest import SMALL, Command, write_music

from cgrnn.cli import COMMANDS, train
from cgrnn.settings import MODEL_OPTIONS, TrainingOptions
from data_prep.midi import write_midi

Refused = Callable[..., None]
FIELDS = [*MODEL_OPTIONS["cgrnn"].__dataclass_fields__, *TrainingOptions.__dataclass_fields__]


@pytest.fixture
def place(tmp_path: Path, music: Path, small_run: Path) -> Path:
    """A folder with good and bad files under short names."""
    shutil.copy(music, tmp_path / "data.h5")
    shutil.copytree(small_run, tmp_path / "run")
    for folder in ("empty", "no-midi"):
        (tmp_path / folder).mkdir()
    (tmp_path / "no-midi" / "notes.txt").write_text("C D E")
    (tmp_path / "x.mid").write_text("C D E")
    (tmp_path / "a-file").write_text("")
    whole = music.read_bytes()
    (tmp_path / "half.h5").write_bytes(whole[: len(whole) // 2])
    write_music(tmp_path / "wide.h5", visible=7)
    write_music(tmp_path / "other.h5", seed=1)
    write_music(tmp_path / "no-valid.h5", valid=0)
    shutil.copy(music, tmp_path / "nan.h5")
    with h5py.File(tmp_path / "nan.h5", "a") as file:
        frames = file["train/frames"][:].astype(np.float32)
        frames[1, 2] = np.nan
        del file["train/frames"]
        file["train/frames"] = frames
    for name, text in {
        "unknown-key": "bogus: 3",
        "wrong-type": "batch_size: abc",
        "wrong-range": "batch_size: 0",
        "wrong-model": "model: nope",
        "model-list": "model: [cgrnn]",
        "not-yaml": "a: [1,\nb: }",
        "list": "- 1\n- 2",
        "nothing": "",
        "other-model": "model: rnn\nhidden_dim: 4",
    }.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    return tmp_path


TRAIN = "train --data data.h5 -o new"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("bogus", ["unknown command 'bogus'", "prepare, train"]),
        ("prepare", ["source", "chorales"]),
        ("prepare bogus -o new.h5", ["'bogus'", "pianorolls"]),
        ("prepare -o new.h5 chorales", ["source first"]),
        ("prepare midi x.mid", ["output", "--help"]),
        ("prepare pianorolls gone.mat -o new.h5", ["gone.mat", "no such file", "give"]),
        ("prepare midi gone -o new.h5", ["gone", "give MIDI files"]),
        ("prepare midi empty -o new.h5", ["empty", "give a folder"]),
        ("prepare midi no-midi -o new.h5", ["no-midi", "give a folder"]),
        ("prepare midi x.mid -o new.h5", ["x.mid", "none of 1"]),
        ("prepare midi x.mid -o gone/new.h5", ["gone/new.h5", "make it first"]),
        ("prepare midi x.mid -o a-file/new.h5", ["a-file/new.h5"]),
        ("prepare midi x.mid -o empty", ["empty is a folder", "name a file"]),
        ("prepare midi x.mid -o new.h5 --frame-rate 0", ["--frame-rate", "above 0, got 0"]),
        ("prepare midi x.mid -o new.h5 --lowest-pitch 128", ["--lowest-pitch", "0 to 127"]),
        ("prepare chorales -o new.h5 --seed -1", ["--seed", "got -1"]),
        ("prepare chorales -o new.h5 --grid third", ["--grid", "quarter, eighth", "got third"]),
        ("train", ["--data", "cgrnn prepare"]),
        ("train --data data.h5", ["--output"]),
        ("train --data gone.h5 -o new", ["gone.h5", "cgrnn prepare"]),
        ("train --data half.h5 -o new", ["half.h5", "truncated", "cgrnn prepare"]),
        ("train --data nan.h5 -o new", ["nan.h5", "NaN in frame 1, column 2"]),
        ("train --data no-valid.h5 -o new", ["no-valid.h5", "valid split is empty", "prepare"]),
        ("train --data data.h5 -o a-file", ["a-file", "choose another"]),
        ("train --data data.h5 -o a-file/new", ["a-file/new", "choose another"]),
        ("train --data data.h5 -o run", ["run: holds a run", "--resume"]),
        ("train -o gone --resume", ["gone: no run to resume", "leave out --resume"]),
        ("train -o empty --resume", ["empty: no run to resume"]),
        ("train --resume", ["--resume", "-o RUN"]),
        ("train -o run --resume --config nothing.yaml", ["--config: leave it out"]),
        ("train -o run --resume --data wide.h5", ["wide.h5", "not the data set", "--data"]),
        ("train -o run --resume --data other.h5", ["other.h5", "not the data set", "--data"]),
        ("train -o run --resume --hidden-dim 5", ["--hidden-dim", "begun with 4"]),
        ("train -o run --resume --batch-size 5", ["--batch-size", "begun with 4"]),
        ("train -o run --resume --model rnn-rbm", ["--model", "begun with cgrnn"]),
        ("train -o run --resume --max-epochs 1", ["--max-epochs", "2 epochs already"]),
        (f"{TRAIN} --model nope", ["'nope'", "rnn-rbm"]),
        (f"{TRAIN} --model", ["--model", "expected one argument"]),
        (f"{TRAIN} --bogus 3", ["--bogus", "--help"]),
        (f"{TRAIN} bogus", ["bogus", "--help"]),
        (f"{TRAIN} --model rnn --hidden-dim 4", ["--hidden-dim", "train --model rnn --help"]),
        (f"{TRAIN} --model rnn --persistent true", ["persistent", "rnn"]),
        (f"{TRAIN} --config gone.yaml", ["gone.yaml", "no such"]),
        (f"{TRAIN} --config unknown-key.yaml", ["unknown-key.yaml", "'bogus'", "--help"]),
        (f"{TRAIN} --config other-model.yaml", ["other-model.yaml", "'hidden_dim'", "rnn --help"]),
        (f"{TRAIN} --config wrong-type.yaml", ["wrong-type.yaml", "--batch-size", "got abc"]),
        (f"{TRAIN} --config wrong-range.yaml", ["wrong-range.yaml", "--batch-size", "got 0"]),
        (f"{TRAIN} --config wrong-model.yaml", ["'nope'", "rnn-rbm"]),
        (f"{TRAIN} --config model-list.yaml", ["unknown model"]),
        (f"{TRAIN} --config not-yaml.yaml", ["not-yaml.yaml: not YAML", "line 2"]),
        (f"{TRAIN} --config list.yaml", ["list.yaml", "name: value"]),
        (f"{TRAIN} --config nothing.yaml", ["nothing.yaml", "name: value"]),
        (f"{TRAIN} --config data.h5", ["data.h5: not YAML"]),
        (f"{TRAIN} --batch-size abc", ["--batch-size", "a whole number, at least 1, got abc"]),
        (f"{TRAIN} --batch-size 0", ["--batch-size", "a whole number, at least 1, got 0"]),
        (f"{TRAIN} --batch-size 1.5", ["--batch-size", "got 1.5"]),
        (f"{TRAIN} --learning-rate nan", ["--learning-rate", "a number, above 0, got nan"]),
        (f"{TRAIN} --learning-rate inf", ["--learning-rate", "got inf"]),
        (f"{TRAIN} --max-epochs -1", ["--max-epochs", "at least 1, got -1"]),
        (f"{TRAIN} --max-minutes x", ["--max-minutes", "a number, above 0, got x"]),
        (f"{TRAIN} --max-minutes 0", ["--max-minutes", "above 0, got 0"]),
        (f"{TRAIN} --dropout 2", ["--dropout", "below 1, got 2"]),
        (f"{TRAIN} --hidden-dim 0", ["--hidden-dim", "at least 1, got 0"]),
        (f"{TRAIN} --hidden-dim 99999999999", ["too large", "lower"]),
        (f"{TRAIN} --mlp-dims [4,0]", ["--mlp-dims", "at least 1", "(4, 0)"]),
        (f"{TRAIN} --mlp-dims 4", ["--mlp-dims", "[400,400]", "got 4"]),
        (f"{TRAIN} --valid-chains 1", ["--valid-chains", "at least 2, got 1"]),
        (f"{TRAIN} --cell nope", ["--cell", "gru, lstm, tanh", "got nope"]),
        (f"{TRAIN} --persistent maybe", ["--persistent", "true or false", "got maybe"]),
        (f"{TRAIN} --seed {2**32}", ["--seed", "4294967295"]),
        ("evaluate gone", ["gone: no such run", "cgrnn train"]),
        ("evaluate empty", ["empty: no checkpoint", "cgrnn train"]),
        ("evaluate run --data wide.h5", ["wide.h5", "7 units", "6", "prepare"]),
        ("evaluate run --data gone.h5", ["gone.h5", "--data"]),
        ("evaluate run --split valid --data no-valid.h5", ["no-valid.h5", "empty", "--data"]),
        ("evaluate run --chains 1", ["--chains", "at least 2, got 1"]),
        ("evaluate run --stderr 0", ["--stderr", "above 0, got 0"]),
        ("generate gone -o new", ["gone: no such run", "cgrnn train"]),
        ("generate run -o new --prime gone.mid", ["gone.mid", "give a MIDI file"]),
        ("generate run -o new --prime x.mid", ["x.mid", "not a readable MIDI file"]),
        ("generate run -o new --frames 0", ["--frames", "at least 1, got 0"]),
        ("generate run -o a-file", ["a-file", "choose another"]),
        ("plot pianoroll gone", ["gone: no such run", "cgrnn train"]),
        ("plot curves gone", ["gone: no such run", "cgrnn train"]),
        ("plot curves empty", ["empty/metrics.csv", "run directory"]),
        ("plot bogus run", ["pianoroll, curves, activations", "got bogus"]),
        ("plot activations run --data wide.h5", ["wide.h5", "7 units", "prepare"]),
        ("plot pianoroll run --index 2", ["--index", "0 to 1"]),
        ("plot curves run -o new.svg", ["new.svg", ".png or .pdf"]),
        ("plot curves run -o a-file/new.png", ["a-file", "choose another"]),
        ("demo --minutes 0 -o new", ["--minutes", "above 0, got 0"]),
        ("models --bogus", ["--bogus", "--help"]),
    ],
)
def test_bad_input_is_refused_in_one_line(
    refused: Refused, place: Path, words: str, says: list[str]
) -> None:
    refused(*shlex.split(words), says=tuple(says))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
@pytest.mark.parametrize("words", ["train --data data.h5 -o locked/new", "generate run -o locked"])
def test_places_that_cannot_be_written_are_refused(
    refused: Refused, place: Path, words: str
) -> None:
    (place / "locked").mkdir(mode=0o500)
    refused(*shlex.split(words), says=("locked", "choose another"))


def test_json_is_all_of_standard_output(command: Command, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for n in range(4):
        roll = random.random((20, 8)) < 0.4
        write_midi(tmp_path / f"{'abcd'[n]}.mid", roll, lowest_pitch=60)
    data, run, new = tmp_path / "data.h5", tmp_path / "run", tmp_path / "new"

    def result(*words: object) -> dict[str, Any]:
        outcome = command(*words, "--json")
        assert outcome.code == 0, outcome.err
        assert outcome.out.count("\n") == 1
        found: dict[str, Any] = json.loads(outcome.out)
        return found

    pitches = ("--lowest-pitch", 60, "--highest-pitch", 67)
    prepared = result("prepare", "midi", tmp_path, *pitches, "-o", data)
    assert prepared["files_found"] == prepared["files_read"] == 4
    assert prepared["sequences"] == {"train": 2, "valid": 1, "test": 1}
    words = ("--data", data, "-o", run, "--max-epochs", 2, "--validate-every", 1, *SMALL)
    trained = result("train", *words)
    assert trained["run"] == str(run) and trained["epochs"] == 2
    assert trained["best_epoch"] in (1, 2) and trained["valid"] < 0
    scored = result("evaluate", run, "--chains", 3, "--levels", 4, "--samples", 1)
    assert scored == json.loads((run / "evaluation.json").read_text())
    assert scored["log_likelihood"]["kind"] == "estimate"
    assert set(scored["accuracy"]) >= {"prediction", "reconstruction"}
    prime = ("--prime", tmp_path / "a.mid", "--prime-frames", 3)
    made = result("generate", run, "-o", new, "--count", 2, "--frames", 3, *prime)
    assert len(made["files"]) == 2
    files = made["files"] + [
        file for kind in ("pianoroll", "curves", "activations")
        for file in result("plot", kind, run)["files"]
    ]  # fmt: skip
    assert all(Path(file).stat().st_size > 0 for file in files)
    assert [row["name"] for row in result("models")["models"]] == list(MODEL_OPTIONS)


def test_results_for_a_person_are_not_json(command: Command) -> None:
    outcome = command("models")
    assert outcome.code == 0 and "spike-and-slab" in outcome.out
    with pytest.raises(json.JSONDecodeError):
        json.loads(outcome.out)


def test_help_and_early_errors_do_not_load_torch(music: Path) -> None:
    script = """
import sys
from cgrnn.cli import COMMANDS, main
calls = [[name, "--help"] for name in COMMANDS]
calls += [["prepare", "midi", "--help"], ["train", "--model", "rnn", "--help"]]
for call in calls:
    try:
        main(call)
    except SystemExit as end:
        assert not end.code
    else:
        raise AssertionError(call)
assert main(["train", "--data", "gone.h5", "-o", "new"]) == 2
assert main(["train", "--data", sys.argv[1], "-o", "new", "--batch-size", "0"]) == 2
print(*{"torch", "lightning", "matplotlib", "scipy"} & set(sys.modules), "loaded", file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script, music], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "loaded"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_names_every_option_with_default_and_unit(command: Command, name: str) -> None:
    units = {
        "prepare midi": ["frames a second", "(type: float, default: 4.0)", "in seconds"],
        "train": [
            "minutes at the most",
            "semitones",
            "nats a frame",
            "(type: float, default: 0.2)",
        ],
        "evaluate": ["nats a frame", "(type: float, default: 0.05)"],
        "generate": ["frames to add", "(type: int, default: 64)"],
        "demo": ["minutes", "(type: float, default: 8.0)"],
    }
    for words in (name, *(["prepare midi"] if name == "prepare" else [])):
        outcome = command(*words.split(), "--help")
        assert outcome.code == 0 and outcome.err == ""
        text = " ".join(outcome.out.split())
        assert "--json" in text
        for unit in units.get(words, []):
            assert unit in text
    if name == "train":
        assert all("--" + field.replace("_", "-") in text for field in FIELDS)


def test_help_of_the_command_names_every_command(command: Command) -> None:
    for words in ([], ["--help"]):
        outcome = command(*words)
        assert outcome.code == 0 and all(f"  {name}" in outcome.out for name in COMMANDS)
    assert command("--version").out.startswith("cgrnn ")


def read_options(*words: object) -> dict[str, Any]:
    argv = [str(word) for word in words]
    return dict(vars(train.parser(argv).read(argv)))


def test_config_of_a_run_gives_the_same_options(
    command: Command, music: Path, tmp_path: Path
) -> None:
    words = ["--model", "rnn-rbm", "--data", music, *SMALL, "--mlp-dims", "[7,3]", "--cell", "lstm"]
    words += ["--learning-rate", "3e-5", "--max-minutes", "2", "--persistent", "true"]
    words += ["--max-epochs", "1", "--dropout", "0"]
    assert command("train", *words, "-o", tmp_path / "run").code == 0
    file = tmp_path / "run" / "config.yaml"
    expected = read_options(*words, "-o", "other")
    got = read_options("--config", file, "-o", "other")
    assert got.pop("config") == str(file) and expected.pop("config") is None
    assert got == expected
    assert got["mlp_dims"] == (7, 3) and got["model"] == "rnn-rbm"
    assert "output" not in yaml.safe_load(file.read_text())
    assert command("train", "--config", file, "-o", tmp_path / "other").code == 0
    assert (tmp_path / "other" / "config.yaml").read_text() == file.read_text()
    metrics = [(tmp_path / run / "metrics.csv").read_text() for run in ("run", "other")]
    scores = [text.splitlines()[1].split(",")[4:] for text in metrics]
    assert scores[0] == scores[1]


def test_command_line_overrides_the_file_in_either_order(tmp_path: Path) -> None:
    file = tmp_path / "[options].yaml"  # a name that a glob would not find
    file.write_text(
        "hidden_dim: 4\ncd_steps: 7\nlearning_rate: 2e-4\nmax_minutes:\nbatch_size: null\n"
    )
    for words in (["--hidden-dim", 9, "--config", file], [f"--config={file}", "--hidden-dim=9"]):
        options = read_options(*words)
        assert (options["hidden_dim"], options["cd_steps"]) == (9, 7)
        assert options["learning_rate"] == 2e-4  # YAML takes this for text
        assert options["max_minutes"] is None and options["batch_size"] == 16


def test_model_in_the_file_decides_which_options_there_are(tmp_path: Path, music: Path) -> None:
    file = tmp_path / "rnn.yaml"
    file.write_text("model: rnn\nrecurrent_dim: 5\n")
    options = read_options("--config", file)
    assert options["model"] == "rnn" and "hidden_dim" not in options
    assert read_options("--config", file, "--model", "rnn-rbm")["feedback"] == "visible"
    with pytest.raises(ValueError, match=r"unrecognized arguments: --hidden-dim 4"):
        read_options("--config", file, "--hidden-dim", 4)
