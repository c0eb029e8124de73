"""`cgrnn models`: the list of models."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from cgrnn.cli.parsing import Parser, make


def parser(argv: Sequence[str]) -> Parser:
    return make("models", "List the models that `cgrnn train --model` takes.", seed=False)


def run(options: Any) -> dict[str, Any]:
    from cgrnn.models import MODELS

    rows = []
    for name, kind in MODELS.items():
        model = kind()
        rows.append(
            {
                "name": name,
                "likelihood": model.likelihood_kind,
                "parameters": sum(p.numel() for p in model.parameters()),
                "about": (inspect.getdoc(kind) or "").split(".")[0].replace("\n", " "),
            }
        )
    return {"models": rows}


def render(result: dict[str, Any]) -> str:
    lines = [f"{'model':<9} {'likelihood':<11} {'parameters':>10}  at the default size, 88 keys"]
    for row in result["models"]:
        lines.append(
            f"{row['name']:<9} {row['likelihood']:<11} {row['parameters']:>10,}  {row['about']}"
        )
    return "\n".join(lines) + "\n"
