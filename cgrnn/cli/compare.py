"""`cgrnn compare`: evaluated runs beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cgrnn.cli.parsing import Parser, make
from cgrnn.cli.runs import make_folder

SUFFIXES = (".md", ".tex", ".csv", ".txt")


def parser(argv: Sequence[str]) -> Parser:
    from evaluation.comparison import COLUMNS

    result = make(
        "compare",
        "One table of evaluated runs, with errors and kinds. Runs of the same data, split and rule "
        "for first frames are ranked; others stand beside them, unranked.",
        seed=False,
    )
    result.add_argument("runs", nargs="+", metavar="RUN", help="run directories, evaluated")
    result.add(
        "--columns",
        kind=str,
        default=",".join(COLUMNS),
        help="which figures, with commas between",
    )
    result.add(
        "-o",
        "--output",
        kind=str,
        help="also write the table: FILE.md, .tex (booktabs), .csv (unrounded) or .txt",
    )
    return result


def run(options: Any) -> dict[str, Any]:
    """Build the table; return what `compare --json` prints."""
    from data_prep import store
    from evaluation import comparison, table_formats

    output = Path(options.output) if options.output else None
    if output and output.suffix not in SUFFIXES:
        raise ValueError(f"--output: {output}: give a name that ends in {', '.join(SUFFIXES)}")
    evaluated = [comparison.read(folder) for folder in options.runs]
    table = comparison.compare(evaluated, options.columns.split(","))
    files = []
    if output:
        texts = {
            ".md": lambda: table_formats.markdown(table),
            ".tex": lambda: table_formats.latex(table),
            ".csv": lambda: table_formats.spreadsheet(evaluated),
            ".txt": lambda: table_formats.terminal(table),
        }
        make_folder(output.parent)
        with store.replacing(output) as temporary:
            temporary.write_text(texts[output.suffix]())
        files.append(str(output))
    return {
        "table": asdict(table),
        "evaluations": {str(one.run): one.found for one in evaluated},
        "text": table_formats.terminal(table),
        "files": files,
    }


def render(result: dict[str, Any]) -> str:
    return str(result["text"]) + "".join(f"wrote {file}\n" for file in result["files"])
