"""The page of a report: nothing leaves it, everything in it shows and sounds."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import PATIENCE, Command
from matplotlib.figure import Figure as Drawing

from data_prep import store
from data_prep.midi import write_midi
from evaluation.comparison import Cell, Table, Value
from evaluation.report import LARGE_SOUND, Figures, Picture, Piece, Section, page

RATE = 11_025
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with a wide table, a figure, two lengths of sound and a score."""
    folder = tmp_path_factory.mktemp("report")
    drawing = Drawing(figsize=(9, 3))
    drawing.subplots().plot([0, 1], [1, 0])
    picture = folder / "curves.png"
    drawing.savefig(picture, dpi=100)
    sounds = []
    for seconds in (0.5, 12.0):
        sound = folder / f"{seconds}.wav"
        soundfile.write(sound, np.sin(np.arange(int(seconds * RATE)) * 0.25) * 0.5, RATE)
        sounds.append(sound)
    assert sounds[0].stat().st_size < LARGE_SOUND < sounds[1].stat().st_size
    score = folder / "piece.mid"
    write_midi(score, np.eye(8, 12, dtype="uint8"), 2.0, 60)
    cells = [Cell("≈ −5.75 ± 0.05", True, Value(-5.75, 0.05, "≈")) for _ in range(12)]
    table = Table(["jsb, test", "audio, test"], [["nats per frame"] * 6] * 2, [("cgrnn", cells)])
    run = Section(
        "cgrnn",
        "data-0-0",
        facts=[("run", "runs/" + "long-name-without-a-break" * 8)],
        pictures=[
            Picture(picture, "Training", "Likelihood over epochs", "cgrnn plot curves runs/a")
        ],
        pieces=[Piece("One", sounds[0], score), Piece("Two", sounds[1])],
        heard=["cgrnn generate runs/a -o music"],
        tables=[Figures("In numbers", ["a", "b"], [["silence", "0", "1"]])],
        missing=["Precision: binary frames have none"],
    )
    group = Section("jsb, test", "data-0", sections=[run])
    file = folder / "report.html"
    file.write_text(page("Runs <script>alert(1)</script>", table, [group], ["cgrnn report"]))
    return file


class _Elements(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_nothing_is_fetched_and_nothing_is_run(report: Path) -> None:
    elements = _Elements(report.read_text()).found
    addresses = [a[n] or "" for _, a in elements for n in ("src", "href") if n in a]
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert not [tag for tag, _ in elements if tag == "script"]
    assert "&lt;script&gt;" in report.read_text()


def test_readable_without_sight(report: Path) -> None:
    elements = _Elements(report.read_text()).found
    assert all(attributes.get("alt") for tag, attributes in elements if tag == "img")
    assert all(attributes.get("aria-label") for tag, attributes in elements if tag == "audio")
    levels = [int(tag[1]) for tag, _ in elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    names = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(names) == len(set(names))
    links = {a["href"] for tag, a in elements if tag == "a" and str(a.get("href")).startswith("#")}
    assert links <= {f"#{name}" for name in names}


def test_contrast_is_that_of_wcag_aa(report: Path) -> None:
    colours = dict(re.findall(r"--(\w+): #(\w{6})", report.read_text()))
    for paper in ("paper", "tint"):
        for ink in ("ink", "soft", "link"):
            assert _contrast(colours[ink], colours[paper]) >= 4.5


def _contrast(one: str, other: str) -> float:
    """By the formula of WCAG 2."""

    def luminance(colour: str) -> float:
        parts = np.array([int(colour[at : at + 2], 16) / 255 for at in (0, 2, 4)])
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_the_command(command: Command, small_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "small"
    shutil.copytree(small_run, run)
    assert "not evaluated yet" in command("report", run, "-o", tmp_path / "page").err
    quick = ["--chains", 2, "--levels", 4, "--stderr", 9, "--sweeps", 3, "--samples", 1]
    assert command("evaluate", run, *quick).code == 0
    outcome = command("report", run, "-o", tmp_path / "page", "--count", 1)
    assert outcome.code == 0, outcome.err
    text = (tmp_path / "page" / "report.html").read_text()
    elements = _Elements(text).found
    pictures = [attributes["alt"] or "" for tag, attributes in elements if tag == "img"]
    assert len(pictures) == 10  # four of all runs, and every kind of this one but precision
    assert [attributes for tag, attributes in elements if "download" in attributes]
    assert sum(tag == "audio" for tag, _ in elements) == 2  # a real sequence and one drawn
    assert "Precision and covariance: " in text  # and why there is none
    assert text.count("cgrnn plot ") == len(pictures)
    assert "<dt>± covers</dt><dd>Monte-Carlo noise of log Z; not the bias" in text


def test_models_of_sound_are_heard(command: Command, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    splits = {name: [(name, random.normal(size=(9, 6)).astype("f4"))] for name in store.SPLITS}
    data, run = tmp_path / "sound.h5", tmp_path / "run"
    store.write(data, splits, kind="continuous", sample_rate=8000)
    words = ["--model", "rnn", "--data", data, "-o", run, "--recurrent-dim", 3, "--max-epochs", 1]
    assert command("train", *words, "--validate-every", 1).code == 0
    assert command("evaluate", run).code == 0
    found = json.loads((run / "evaluation.json").read_text())
    for name in ("unit", "nats_to_file_units", "stderr_covers"):  # earlier versions wrote none
        del found["log_likelihood"][name]
    (run / "evaluation.json").write_text(json.dumps(found))
    outcome = command("report", run, "-o", tmp_path / "page", "--count", 2)
    assert outcome.code == 0, outcome.err
    text = (tmp_path / "page" / "report.html").read_text()
    assert sum(tag == "audio" for tag, _ in _Elements(text).found) == 3  # one real, two drawn
    assert "Music: " not in text
    assert "nats per frame of normalised frames, (v - mean)/std" in text


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if BROWSER is None:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    quiet += ["--disable-component-update", "--disable-sync", "--no-first-run"]
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=BROWSER, args=quiet, timeout=1000 * PATIENCE
        )
        yield opened
        opened.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser(report: Path, browser: Any, width: int) -> None:
    tab = browser.new_page(viewport={"width": width, "height": 800})
    tab.set_default_timeout(1000 * PATIENCE)
    complaints: list[str] = []
    requests: list[str] = []
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto(report.as_uri())
    assert tab.evaluate("[...document.images].every(one => one.complete && one.naturalWidth > 0)")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    for sound in tab.query_selector_all("audio"):
        sound.evaluate("async one => { one.muted = true; await one.play(); }")
        tab.wait_for_function("one => one.currentTime > 0.05", arg=sound)
        assert sound.evaluate("one => one.error === null && one.duration > 0.4")
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.textContent") == "To the content"
    tab.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith("data:")] == [report.as_uri()]
