"""`cgrnn models`: the list of models."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Sequence
from typing import Any

from cgrnn.cli.parsing import Parser, make

WIDTH = 100


def parser(argv: Sequence[str]) -> Parser:
    return make("models", "List the models that `cgrnn train --model` takes.", seed=False)


def run(options: Any) -> dict[str, Any]:
    from cgrnn.models import MODELS

    rows = []
    for name, kind in MODELS.items():
        model, text = kind(), " ".join((inspect.getdoc(kind) or "").split())
        paper = re.search(r"Source: (.*?)(?:\. |; | Departures|$)", text)
        rows.append(
            {
                "name": name,
                "likelihood": model.likelihood_kind,
                "frames": list(kind.kinds),
                "parameters": sum(p.numel() for p in model.parameters()),
                "about": re.split(r"\.(?: |$)", text)[0],
                "paper": paper[1].rstrip(".") if paper else "",
            }
        )
    return {"models": rows}


def render(result: dict[str, Any]) -> str:
    head = f"{'model':<10} {'likelihood':<12} {'frames':<18} {'parameters':>10}"
    lines = [f"{head}  at the default size, 88 units a frame"]
    for row in result["models"]:
        lines.append(
            f"{row['name']:<10} {row['likelihood']:<12} {', '.join(row['frames']):<18} "
            f"{row['parameters']:>10,}"
        )
        for text in (row["about"], row["paper"]):
            lines += textwrap.wrap(text, WIDTH, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(lines) + "\n"
