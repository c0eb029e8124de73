"""`cgrnn report`: a page of evaluated runs, made by the commands that it names."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cgrnn.cli as cli
from cgrnn.cli.generate import music_table
from cgrnn.cli.parsing import Parser, make
from cgrnn.cli.runs import make_folder
from cgrnn.settings import AT_LEAST_ONE, NOT_NEGATIVE

if TYPE_CHECKING:
    from evaluation.comparison import Evaluated
    from evaluation.report import Section


class _Plot(NamedTuple):
    """A kind of figure: its heading, and what it shows."""

    kind: str
    title: str
    text: str


TOGETHER = (
    _Plot("curves", "Training", "Validation log-likelihood and training loss over the epochs."),
    _Plot(
        "recursive",
        "On their own output",
        "How near each model comes to the frame k steps ahead when it goes on by itself, "
        "k = 1 to 32; bands are one standard error.",
    ),
    _Plot(
        "activations",
        "Hidden activations",
        "What the hidden units do over time on the same test sequence: E[h⊙s | v, u] of "
        "spike-and-slab models, posterior means of latent-variable models, the recurrent state "
        "of others.",
    ),
)
MUSIC = _Plot(
    "statistics",
    "Statistics of the music",
    "Notes in a frame, pitch classes, steps, intervals and lengths of notes in the music made by "
    "each model, beside the training set's.",
)
ALONE = (
    _Plot(
        "pianoroll",
        "Prediction and continuation",
        "A test sequence, the probability of each note one frame ahead, and how the model goes on "
        "from the first half.",
    ),
    _Plot(
        "reconstruction",
        "Truth, prediction, reconstruction",
        "A test sequence, the same predicted one frame ahead from the frames before it, and "
        "reconstructed by latents that have seen it.",
    ),
    _Plot(
        "energy",
        "Likelihood over time",
        "Free energy, log Z and log-likelihood of each frame of a test sequence, in nats.",
    ),
    _Plot(
        "precision",
        "Precision and covariance",
        "Precision matrix C_h⁻¹ and covariance C_h of the frame density at three frames, and "
        "averaged over the spikes; one scale, zero in the middle.",
    ),
    _Plot(
        "similarity",
        "Self-similarity",
        "How like each moment of a piece is to every other, in a test sequence and in two pieces "
        "of the model.",
    ),
    _Plot("filters", "Filters", "The columns of the coupling matrix W, sorted."),
    _Plot(
        "weights",
        "Weights of annealed importance sampling",
        "Log-weights of the annealing chains at some frames: a narrow spread means a log Z that "
        "can be trusted.",
    ),
)


def parser(argv: Sequence[str]) -> Parser:
    result = make(
        "report",
        "One HTML page of evaluated runs, with everything in it: the table, every figure, music "
        "to hear and to take away, and the command behind each. Opens from disk.",
    )
    result.add_argument("runs", nargs="+", metavar="RUN", help="run directories, evaluated")
    result.add("-o", "--output", kind=str, required=True, help="folder to write")
    result.add(
        "--index",
        kind=int,
        default=0,
        help="test sequence that the figures show, from 0",
        limit=NOT_NEGATIVE,
    )
    result.add("--count", kind=int, default=3, help="pieces to draw a run", limit=AT_LEAST_ONE)
    result.add("--title", kind=str, default="Sequence models compared", help="heading")
    return result


def run(options: Any) -> dict[str, Any]:
    """Make figures, music and the page; return what `report --json` prints."""
    import platform

    import torch

    from cgrnn import __version__
    from data_prep import store
    from evaluation import comparison, report

    evaluated = [comparison.read(folder) for folder in options.runs]
    maker = _Maker(make_folder(options.output), options)
    table = comparison.compare(evaluated)
    groups: dict[Any, list[Evaluated]] = {}
    for one in evaluated:
        groups.setdefault(one.protocol, []).append(one)
    sections = [maker.group(number, group) for number, group in enumerate(groups.values())]
    words = ["cgrnn", "report", *options.runs, "-o", options.output]
    made = [
        f"Made on {date.today():%d %B %Y} by cgrnn {__version__}, torch {torch.__version__}, "
        f"Python {platform.python_version()}: {shlex.join(words)}"
    ]
    file = maker.folder / "report.html"
    with store.replacing(file) as temporary:
        temporary.write_text(report.page(options.title, table, sections, made), encoding="utf-8")
    return {"files": [str(file)]}


def render(result: dict[str, Any]) -> str:
    return "".join(f"wrote {file}\n" for file in result["files"])


class _Maker:
    """Calls the commands whose results the page shows.

    Args:
        folder: where figures and music go.
        options: of the report.
    """

    def __init__(self, folder: Path, options: Any) -> None:
        self.folder, self.options = folder, options
        self.shown = ["--index", str(options.index)]
        self.seed = ["--seed", str(options.seed)]

    def group(self, number: int, group: Sequence[Evaluated]) -> Section:
        """The section of a data set: what its runs show together, then each run."""
        from evaluation.comparison import names_of
        from evaluation.report import Section

        names = names_of([group])
        first, anchor = group[0], f"data-{number}"
        data = first.found["data"]
        section = Section(
            first.setting,
            anchor,
            facts=[
                ("data set", f"{data['path']}, fingerprint {data['fingerprint'][:16]}"),
                ("scored", f"{first.found['sequences']} sequences, {first.found['frames']} frames"),
            ],
        )
        self.listen(section, data["path"])
        for place, one in enumerate(group):
            section.sections.append(self.run(f"{anchor}-{place}", one, names[id(one)]))
        runs = [str(one.run) for one in group]
        for plot in TOGETHER:
            self.draw(section, plot, runs, self.shown)
        music = [str(folder) for folder in map(self.music, section.sections) if folder.is_dir()]
        self.draw(section, MUSIC, music, [])
        return section

    def run(self, anchor: str, one: Evaluated, name: str) -> Section:
        """The section of a run."""
        from evaluation.report import Section

        section = Section(name, anchor, facts=_facts(one))
        self.play(section, one)
        for plot in ALONE:
            self.draw(section, plot, [str(one.run)], self.shown)
        return section

    def music(self, section: Section) -> Path:
        """Where the music of a run goes; its last part names the run in figures."""
        return self.folder / "music" / section.anchor / Path(section.title).name

    def draw(self, section: Section, plot: _Plot, runs: Sequence[str], more: Sequence[str]) -> None:
        """Add a figure, or the reason why there is none."""
        from evaluation.report import Picture

        file = self.folder / "figures" / f"{section.anchor}-{plot.kind}.png"
        words = ["plot", plot.kind, *runs, *more, *self.seed, "-o", str(file)]
        if self.made(section, plot.title, words):
            text = f"{section.title}: {plot.text}"
            section.pictures.append(Picture(file, plot.title, text, _typed(words)))

    def listen(self, section: Section, data: str) -> None:
        """Add the test sequence that the figures show."""
        from evaluation.report import Piece

        file = self.folder / "music" / f"{section.anchor}-test.wav"
        make_folder(file.parent)
        words = ["data", "listen", data, *self.shown, "-o", str(file)]
        if self.made(section, "Test sequence", words):
            section.pieces.append(Piece(f"Test sequence {self.options.index}, real", file))
            section.heard.append(_typed(words))

    def play(self, section: Section, one: Evaluated) -> None:
        """Add what the model makes up, and how it compares with the training set."""
        from evaluation.report import Figures, Piece

        folder = self.music(section)
        usual = round(one.found["frames"] / one.found["sequences"])
        words = ["generate", str(one.run), "-o", str(folder), "--count", str(self.options.count)]
        words += ["--frames", str(usual), *self.seed]
        if "accuracy" in one.found:  # a model of notes; one of sound writes WAV anyway
            words += ["--wav", "true"]
        found = self.made(section, "Music", words)
        if not found:
            return
        section.heard.append(_typed(words))
        files = [Path(file) for file in found["files"]]
        scores = {file.stem: file for file in files if file.suffix == ".mid"}
        for number, file in enumerate(file for file in files if file.suffix == ".wav"):
            piece = Piece(f"Drawn from silence, {number + 1}", file, scores.get(file.stem))
            section.pieces.append(piece)
        heads, *rows = music_table(found["statistics"]) or [[]]
        if rows:
            title = "What was made, beside the training set; usual: the distance of real music"
            section.tables.append(Figures(title, heads[1:], rows))

    def made(self, section: Section, title: str, words: Sequence[str]) -> dict[str, Any]:
        """What a command says in JSON; nothing where it refuses, and the section says why."""
        cli.say(f"$ {_typed(words)}")
        try:
            result: dict[str, Any] = json.loads(cli.run([*words, "--json"]))
        except (ValueError, OSError) as reason:
            section.missing.append(f"{title}: {reason}")
            return {}
        return result


def _typed(words: Sequence[str]) -> str:
    return "cgrnn " + shlex.join(words)


def _facts(one: Evaluated) -> list[tuple[str, str]]:
    """What a reader asks first of a run."""
    from cgrnn import units
    from cgrnn.models import MODELS
    from evaluation.comparison import COLUMNS, Value, form_with, normalisation, written

    found, scores = one.found, one.found["log_likelihood"]
    about = " ".join((MODELS[found["model"]].__doc__ or "").split()).split(". ")[0]
    facts = [
        ("model", f"{found['model']}: {about}"),
        ("run", f"{one.run}, epoch {found['epoch']}, {found['parameters']:,} parameters"),
        (
            "likelihood",
            f"{scores['kind']}, by {scores['estimator']}; {units.unit(*normalisation(found))}",
        ),
    ]
    if scores["stderr"] and "stderr_covers" in scores:  # which files of earlier versions have not
        facts.append(("± covers", scores["stderr_covers"]))
    facts.append(("measured by", found["command"]))
    if scores["bounds"]:
        form = form_with(scores["stderr"], COLUMNS["likelihood"].form)
        bounds = (f"{name} {written(Value(x), form)}" for name, x in scores["bounds"].items())
        facts.append(("lower bounds", ", ".join(bounds) + " per frame"))
    if scores.get("draws"):
        about_it = f"{scores['draws']}, over which the bound is the mean"
        facts.append(("draws of the latents", about_it))
    if scores["chains"]:
        effort = (
            f"{scores['chains']} chains × {scores['levels']} levels on "
            f"{scores['frames_estimated']} frames, {scores['ess']} chains effective; annealing in "
            f"reverse lies {-scores['reverse_gap']:+.3f} nats a frame from the figure"
        )
        facts.append(("log Z", effort))
    chains = found["chains"] or {"warning": ""}
    warnings = [*scores["warnings"], chains["warning"]]
    return facts + [("warning", text) for text in warnings if text]
