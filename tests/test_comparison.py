"""What may be ranked, what is best, and the table's forms."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cgrnn.cli as cli
from evaluation.comparison import COLUMNS, Evaluated, Table, Value, compare, read, written
from evaluation.table_formats import latex, markdown, spreadsheet, terminal


def evaluated(
    model: str,
    per_frame: float,
    stderr: float = 0.0,
    kind: str = "exact",
    *,
    fingerprint: str = "a",
    split: str = "test",
    told: bool = False,
    warnings: tuple[str, ...] = (),
    accuracy: float = 0.2,
    rmse: float | None = None,
    std: float = 1.0,
    told_units: float | None = None,
) -> Evaluated:
    measure, value = ("accuracy", accuracy) if rmse is None else ("rmse", rmse)
    found: dict[str, Any] = {
        "model": model,
        "split": split,
        "sequences": 10,
        "frames": 100,
        "log_likelihood": {
            "per_frame": per_frame,
            "per_sequence": per_frame - 0.1,
            "stderr": stderr,
            "per_sequence_stderr": 2 * stderr,
            "kind": kind,
            "estimator": "e",
            "first_frame_scored": not told,
            "warnings": list(warnings),
            **({} if told_units is None else {"nats_to_file_units": told_units}),
        },
        measure: {"prediction": value, "reconstruction": value + 0.1},
        measure + "_stderr": {"prediction": 0.01, "reconstruction": 0.01},
        "parameters": 1234,
        "recursive": {"steps": [1, 8], measure: [value, value / 2], "stderr": [0.01, 0.01]},
        "floors": [{"name": "independent", "per_frame": -11.0, "per_sequence": -11.1}],
        "data": {
            "path": f"some/{fingerprint}.h5",
            "fingerprint": fingerprint,
            "mean": 0,
            "std": std,
        },
    }
    return Evaluated(Path("runs") / f"{model}-{fingerprint}-{split}", found)


def best(table: Table, column: int = 0) -> list[str]:
    return [name for name, cells in table.rows if cells[column].best]


def test_best_only_beyond_twice_the_error() -> None:
    far = compare([evaluated("a", -5.0, 0.03), evaluated("b", -5.13, 0.04)])  # error 0.05
    near = compare([evaluated("a", -5.0, 0.03), evaluated("b", -5.09, 0.04)])
    assert best(far) == ["a"]
    assert best(near) == []


def test_exact_figures_that_read_the_same_have_no_best() -> None:
    assert best(compare([evaluated("a", -5.001), evaluated("b", -5.004)])) == []


def test_lower_error_is_better_where_frames_are_continuous() -> None:
    runs = [evaluated("a", 5, rmse=0.5), evaluated("b", 4, rmse=0.9)]
    prediction = list(COLUMNS).index("prediction")
    assert best(compare(runs), prediction) == ["a"]
    assert best(compare(runs)) == ["a"]


def test_a_doubtful_figure_is_never_best_and_its_warning_is_told() -> None:
    table = compare([evaluated("a", -2.0, warnings=("AIS has collapsed",)), evaluated("b", -5.0)])
    assert best(table) == []
    assert any("AIS has collapsed" in note for note in table.notes)


def test_a_lower_bound_is_marked_and_noted() -> None:
    table = compare([evaluated("a", -5.0), evaluated("b", -6.0, 0.001, "lower bound")])
    assert dict(table.rows)["b"][0].text.startswith("≥")
    (note,) = (note for note in table.notes if "lower bounds (b)" in note)
    assert "more than ±" in note
    assert "without the bias of an estimate and the gap of a bound" in terminal(table)


@pytest.mark.parametrize(
    "other",
    [
        evaluated("b", -9.0, fingerprint="other"),
        evaluated("b", -9.0, split="valid"),
        evaluated("b", -9.0, told=True),
    ],
    ids=["data", "split", "first frame"],
)
def test_unlike_figures_stand_beside_each_other_unranked(other: Evaluated) -> None:
    table = compare([evaluated("a", -5.0), other])
    assert len(table.settings) == 2
    rows = dict(table.rows)
    width = len(COLUMNS)
    assert rows["a"][0].text != "–"
    assert all(cell.text == "–" for cell in rows["a"][width:])
    assert all(cell.text == "–" for cell in rows["b"][:width])
    assert "not ranked" in table.notes[0]
    # Alone among models, each is ranked against its floor and nothing else.
    assert rows["a"][0].best
    assert rows["b"][width].best


def test_the_averages_are_columns_of_their_own() -> None:
    cells = dict(compare([evaluated("a", -5.0)]).rows)["a"]
    assert (cells[0].text, cells[1].text) == ("= −5.00", "= −5.10")


def test_one_model_twice_is_named_by_its_folders() -> None:
    first = evaluated("a", -5.0)
    again = Evaluated(Path("runs/again"), first.found)
    assert [name for name, _ in compare([first, again]).rows][:2] == ["runs/a-a-test", "runs/again"]


def test_a_model_on_two_data_sets_has_one_row_as_in_the_papers_table() -> None:
    runs = [evaluated("a", -5.0), evaluated("a", 300.0, fingerprint="audio", rmse=0.5, std=0.1)]
    table = compare(runs, ("likelihood", "prediction"))
    assert table.titles == [
        ["nats per frame", "accuracy, prediction"],
        ["nats per normalised frame", "RMSE, prediction"],
    ]
    assert [cell.text for cell in dict(table.rows)["a"]] == [
        *("= −5.00", "20.0% ± 1.0%"),
        *("= 300.00", "0.500 ± 0.010"),
    ]


@pytest.mark.parametrize(
    ("number", "said"), [(345.38, "add 345.4 a frame"), (None, "add −V log 0.1 (of V units) a")]
)
def test_nats_of_normalised_frames_are_named_and_converted(number: float | None, said: str) -> None:
    """Files of earlier versions, which do not hold the number, are told by their deviation."""
    other = evaluated("c", -5.0)
    runs = [evaluated("a", 9.0, rmse=0.5, std=0.1, told_units=number), other]
    table = compare(runs)
    heads = [titles[:2] for titles in table.titles]
    assert heads[0] == ["nats per normalised frame", "nats per normalised frame, by sequence"]
    assert heads[1] == ["nats per frame", "nats per frame, by sequence"]
    told = [note for note in table.notes if "normalised" in note]
    assert len(told) == 1 and said in told[0] and "std 0.1." in told[0]
    for text in (terminal(table), markdown(table), latex(table)):
        assert "nats per normalised frame" in text and said in text
    first, second = csv.DictReader(spreadsheet(runs).splitlines())
    assert first["unit"] == "nats per frame of normalised frames, (v - mean)/std"
    assert first["nats_to_file_units"] == ("" if number is None else "345.38")
    assert (second["unit"], second["stderr_covers"]) == ("nats per frame", "")


def test_forms_hold_the_same_cells() -> None:
    runs = [evaluated("a", -5.0, 0.02, "estimate"), evaluated("b_2", -7.0)]
    table = compare(runs)
    text = terminal(table)
    assert re.search(r"^a +≈ −5\.00 ± 0\.02\*", text, re.M)
    assert "| `a` | **≈ −5.00 ± 0.02** |" in markdown(table)
    tex = latex(table)
    assert r"a & \textbf{$\approx$ $-$5.00 $\pm$ 0.02}" in tex
    assert r"b\_2" in tex
    columns = len(re.search(r"\{tabular\}\{(\w+)\}", tex)[1])  # type: ignore[index]
    body = [line for line in tex.splitlines() if line.endswith(r"\\") and "multi" not in line]
    assert {line.count("&") for line in body} == {columns - 1}
    rows = list(csv.DictReader(spreadsheet(runs).splitlines()))
    assert float(rows[0]["per_frame"]) == -5.0
    assert [row["model"] for row in rows] == ["a", "b_2"]


def test_written() -> None:
    assert written(Value(1234567), ",.0f") == "1,234,567"
    assert written(Value(-7.1, 0.0016, "≥"), ".2f") == "≥ −7.10 ± <0.01"
    assert written(Value(-7.1, 0.0051), ".2f") == "−7.10 ± 0.01"
    assert written(Value(-498.124, 9.97), ".2f") == "−498 ± 10"
    assert written(Value(-498.124, 0.997), ".2f") == "−498.1 ± 1.0"
    assert written(Value(0.2, 0.0003), ".1%") == "20.0% ± <0.1%"
    assert written(Value(0.2, 0.0216), ".1%") == "20.0% ± 2.2%"
    assert written(Value(0.5, math.inf), ".3f") == "0.500 ± inf"


@pytest.mark.parametrize("form", [".2f", ".1%", ".3f"])
def test_figure_and_error_have_the_same_decimals(form: str) -> None:
    for stderr in np.logspace(-6, 3, 400):
        texts = written(Value(0.123456, stderr), form).split(" ± ")
        value, error = (text.strip("<%").partition(".")[2] for text in texts)
        assert len(value) == len(error) <= int(form[1])
        scale = 100 if "%" in form else 1
        shown, half = float(texts[1].strip("<%")) / scale, 0.5 * 10 ** -len(error) / scale
        if "<" in texts[1]:
            assert stderr <= half and len(error) == int(form[1])
        else:  # two digits, or as many as the form has
            assert abs(shown - stderr) <= 1.001 * half
            assert half <= 0.051 * stderr or len(error) == int(form[1])
            assert len(error) == 0 or scale * shown < 10


def write(folder: Path, one: Evaluated) -> Path:
    folder.mkdir()
    (folder / "evaluation.json").write_text(json.dumps(one.found))
    return folder


def test_the_command(tmp_path: Path) -> None:
    runs = [
        write(tmp_path / "x", evaluated("a", -5.0)),
        write(tmp_path / "y", evaluated("b", -6.0)),
    ]
    words = ["compare", *map(str, runs), "-o", str(tmp_path / "t" / "table.tex"), "--json"]
    result = json.loads(cli.run(words))
    assert r"\begin{tabular}" in (tmp_path / "t" / "table.tex").read_text()
    assert result["table"]["rows"][0][1][0]["best"]
    shown = cli.run(["compare", *map(str, runs), "--columns", "likelihood"])
    assert "= −5.00*" in shown
    assert "accuracy" not in shown


def test_refusals(tmp_path: Path) -> None:
    good = str(write(tmp_path / "x", evaluated("a", -5.0)))
    with pytest.raises(FileNotFoundError, match="no such run"):
        read(tmp_path / "none")
    (tmp_path / "bare").mkdir()
    with pytest.raises(FileNotFoundError, match="run `cgrnn evaluate"):
        read(tmp_path / "bare")
    (tmp_path / "x" / "evaluation.json").write_text("{}")
    with pytest.raises(ValueError, match="not an evaluation"):
        read(good)
    with pytest.raises(ValueError, match="unknown 'speed'; known: likelihood"):
        compare([evaluated("a", -5.0)], ["speed"])
    with pytest.raises(ValueError, match=r"--output: .*\.docx"):
        cli.run(["compare", good, "-o", "t.docx"])
