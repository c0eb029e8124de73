"""A comparison as text: for the terminal, Markdown, LaTeX and spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from cgrnn import units
from evaluation.comparison import MEASURES, Evaluated, Table, measure_of, normalisation

_LATEX = {"≈": r"$\approx$", "≥": r"$\geq$", "≤": r"$\leq$", "=": "$=$"}
_LATEX |= {"±": r"$\pm$", "−": "$-$", "–": "--"}
_LATEX |= {"<": "$<$", **{char: "\\" + char for char in "%_&#"}}

_SCORES = ("per_frame", "per_sequence", "stderr", "kind", "estimator", "first_frame_scored")
# Not by files of earlier versions.
_TOLD = ("nats_to_file_units", "stderr_covers", "per_sequence_stderr", "proven_at_most")


def terminal(table: Table) -> str:
    """A block of aligned columns for each data set; a star marks the best of a column."""
    lines = []
    for setting, titles, body in table.parts():
        rows = [
            [name, *(cell.text + ("*" if cell.best else " ") for cell in cells)]
            for name, cells in body
        ]
        heads = ["", *(title + " " for title in titles)]
        widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
        lines += [setting, *(_aligned(row, widths) for row in (heads, *rows)), ""]
    return "\n".join([*lines, *legend(table, "*")]) + "\n"


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    name, *cells = (
        text.rjust(width) if at else text.ljust(width)
        for at, (text, width) in enumerate(zip(row, widths, strict=True))
    )
    return "  ".join([name, *cells]).rstrip()


def markdown(table: Table) -> str:
    """A table of GitHub's Markdown; the best of a column is bold."""
    several = len(table.settings) > 1
    heads = [
        f"{setting}: {title}" if several else title
        for setting, titles in zip(table.settings, table.titles, strict=True)
        for title in titles
    ]
    rows = [
        [f"`{name}`", *(f"**{cell.text}**" if cell.best else cell.text for cell in cells)]
        for name, cells in table.rows
    ]
    lines = (["model", *heads], ["---"] + ["--:"] * len(heads), *rows)
    body = ["| " + " | ".join(line) + " |" for line in lines]
    notes = [f"\n{line}" for line in legend(table, "Bold")]
    above = [] if several else [table.settings[0], ""]
    return "\n".join([*above, *body, *notes]) + "\n"


def legend(table: Table, best: str) -> list[str]:
    """What the signs mean, and the notes."""
    return [
        f"{best}: leads its column by more than twice the standard error of the difference. "
        "= exact, ≈ estimate, ≥ lower bound, ≤ upper bound; ± one standard error: of likelihoods "
        "Monte-Carlo noise, without the bias of an estimate and the gap of a bound to the "
        "likelihood; of other figures their spread over sequences. By sequence: the mean of each "
        "sequence's average per frame.",
        *table.notes,
    ]


def latex(table: Table) -> str:
    """A `tabular` for the package booktabs, each data set heading its columns."""
    counts = [len(titles) for titles in table.titles]
    groups = [
        rf"\multicolumn{{{count}}}{{c}}{{{_tex(setting)}}}"
        for count, setting in zip(counts, table.settings, strict=True)
    ]
    titles = [_tex(title) for group in table.titles for title in group]
    rows = [
        " & ".join(
            [_tex(name)]
            + [rf"\textbf{{{_tex(cell.text)}}}" if cell.best else _tex(cell.text) for cell in cells]
        )
        for name, cells in table.rows
    ]
    body = [" & ".join(["", *groups]), " & ".join(["model", *titles])]
    return "\n".join(
        [
            *(f"% {line}" for line in legend(table, "Bold")),
            rf"\begin{{tabular}}{{l{'r' * sum(counts)}}}",
            r"\toprule",
            *(line + r" \\" for line in body),
            r"\midrule",
            *(line + r" \\" for line in rows),
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def spreadsheet(runs: Sequence[Evaluated]) -> str:
    """One row a run, numbers unrounded."""
    rows = []
    for one in runs:
        found, scores = one.found, one.found["log_likelihood"]
        measure = measure_of(found)
        rows.append(
            {
                "run": one.run,
                "model": found["model"],
                "data": found["data"]["path"],
                "fingerprint": found["data"]["fingerprint"],
                "split": found["split"],
                **{name: scores[name] for name in _SCORES},
                "unit": units.unit(*normalisation(found)),
                **{name: scores.get(name) for name in _TOLD},
                "measure": MEASURES[measure],
                **found[measure],
            }
        )
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _tex(text: str) -> str:
    return "".join(_LATEX.get(char, char) for char in text)
