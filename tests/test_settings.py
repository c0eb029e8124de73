"""Options and the models' own signatures say the same."""

from __future__ import annotations

import dataclasses
import inspect

import pytest
import yaml

from cgrnn.cli import train
from cgrnn.cli.train import SHIPPED
from cgrnn.models import MODELS
from cgrnn.settings import MODEL_OPTIONS


def signature(kind):
    """Parameters with defaults, those of base classes included."""
    found = {}
    for base in reversed(kind.__mro__[: kind.__mro__.index(kind.__bases__[0]) + 1]):
        found |= {
            name: parameter.default
            for name, parameter in inspect.signature(base.__init__).parameters.items()
            if parameter.default is not inspect.Parameter.empty
        }
    return found


def test_every_model_has_options():
    assert set(MODELS) == set(MODEL_OPTIONS)


@pytest.mark.parametrize("name", MODELS)
def test_options_and_signature_agree(name):
    wanted = signature(MODELS[name])
    options = {field.name: field.default for field in dataclasses.fields(MODEL_OPTIONS[name])}
    for option, default in options.items():
        assert wanted[option] == default, option
    # What the command leaves out is what it takes from the data.
    own = set(inspect.signature(MODELS[name].__init__).parameters) - {"self", "options", "density"}
    assert own - set(options) == {"visible_dim", "visible", "classes"} & own


@pytest.mark.parametrize("file", sorted(SHIPPED.glob("*.yaml")), ids=lambda file: file.stem)
def test_shipped_settings_are_options_of_their_model(file):
    words = ["--config", file.stem, "--data", "x.h5", "-o", "run"]
    options = train.parser(words).read(words)
    content = yaml.safe_load(file.read_text())
    assert content["model"] in MODELS
    for name, value in content.items():
        found = options[name]
        assert (list(found) if isinstance(found, tuple) else found) == value, name
