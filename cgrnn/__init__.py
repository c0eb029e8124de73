"""Energy-based sequence models, centred on the Chain Graphical Recurrent Neural Network.

The names below load torch when they are first used, so that the command starts at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cgrnn.checkpoint import load
    from cgrnn.models import (
        CGRNN,
        LGSSM,
        LSTMNADE,
        NASMC,
        RNN,
        RNNGMM,
        RNNNADE,
        RNNRBM,
        RNNRNADE,
        RNNSSRBM,
        SRNN,
        STORN,
        TSBN,
        VRNN,
        NoteRNN,
        ZForcing,
    )

__version__ = "0.1.0"
__all__ = [
    "CGRNN",
    "LGSSM",
    "LSTMNADE",
    "NASMC",
    "RNN",
    "RNNGMM",
    "RNNNADE",
    "RNNRBM",
    "RNNRNADE",
    "RNNSSRBM",
    "SRNN",
    "STORN",
    "TSBN",
    "VRNN",
    "NoteRNN",
    "ZForcing",
    "load",
]

_HOMES = {"load": "cgrnn.checkpoint"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'cgrnn' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES.get(name, "cgrnn.models")), name)
