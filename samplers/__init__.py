"""Markov chains over the frames of an energy density, and what training and generation need.

A sampler sees a density through its methods alone (`cgrnn.layers.energy.EnergyDensity`) and takes
its randomness from a `torch.Generator` (None: the global one).
"""

from samplers.contrastive import contrastive_loss
from samplers.gibbs import chain, draw

__all__ = ["chain", "contrastive_loss", "draw"]
