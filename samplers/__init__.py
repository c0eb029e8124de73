"""Markov chains over the frames of an energy density, and what training and generation need.

A sampler sees a density through its methods alone (`cgrnn.layers.energy.EnergyDensity`) and takes
its randomness from a `torch.Generator` (None: the global one).
"""

from samplers.contrastive import contrastive_loss
from samplers.diagnostics import Diagnostics, diagnose, watch
from samplers.gibbs import chain, cool, draw
from samplers.tempering import Replicas, Tempered, parallel_tempering

__all__ = [
    "Diagnostics",
    "Replicas",
    "Tempered",
    "chain",
    "contrastive_loss",
    "cool",
    "diagnose",
    "draw",
    "parallel_tempering",
    "watch",
]
