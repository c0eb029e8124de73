"""The sequence models, by the name that `--model` takes."""

from __future__ import annotations

from collections.abc import Callable

from cgrnn.models.recurrent import CGRNN, RNN, RNNRBM, RecurrentModel

MODELS: dict[str, Callable[..., RecurrentModel]] = {
    model.name: model for model in (CGRNN, RNNRBM, RNN)
}
