"""Figures of data and of trained models.

Each function takes arrays (`evaluation.inside` makes them of a model and frames) and returns a
matplotlib Figure, which a notebook shows and `save` writes. They are 180 mm wide, in type of 8
points, in colours that the colour-blind tell apart; nothing of matplotlib's own settings is changed
outside them.
"""

from evaluation.figures.activations import activations
from evaluation.figures.curves import LOSSES, curves
from evaluation.figures.energy import energy
from evaluation.figures.filters import filters
from evaluation.figures.music import histograms, pianoroll, similarity
from evaluation.figures.precision import precision
from evaluation.figures.reconstruction import reconstruction
from evaluation.figures.recursive import recursive
from evaluation.figures.style import save
from evaluation.figures.track import Track, note_name
from evaluation.figures.weights import weights

__all__ = [
    "LOSSES",
    "Track",
    "activations",
    "curves",
    "energy",
    "filters",
    "histograms",
    "note_name",
    "pianoroll",
    "precision",
    "reconstruction",
    "recursive",
    "save",
    "similarity",
    "weights",
]
