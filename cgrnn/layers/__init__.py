"""Frame densities: `layer(context)` is a density over one frame, batched over leading dims."""

from cgrnn.layers.bernoulli_rbm import BernoulliRBM, BernoulliRBMDensity
from cgrnn.layers.energy import EnergyDensity
from cgrnn.layers.gaussian_rbm import GaussianRBM, GaussianRBMDensity
from cgrnn.layers.gaussian_spike_slab import GaussianSpikeSlabRBM, GaussianSpikeSlabRBMDensity
from cgrnn.layers.nade import NADE, RNADE, NADEDensity, RNADEDensity
from cgrnn.layers.spike_slab import BinarySpikeSlabRBM, BinarySpikeSlabRBMDensity
from cgrnn.layers.tractable import (
    GaussianMixture,
    GaussianMixtureDensity,
    IndependentBernoulli,
    IndependentBernoulliDensity,
    IndependentGaussian,
    IndependentGaussianDensity,
    TractableDensity,
)

__all__ = [
    "NADE",
    "RNADE",
    "BernoulliRBM",
    "BernoulliRBMDensity",
    "BinarySpikeSlabRBM",
    "BinarySpikeSlabRBMDensity",
    "EnergyDensity",
    "GaussianMixture",
    "GaussianMixtureDensity",
    "GaussianRBM",
    "GaussianRBMDensity",
    "GaussianSpikeSlabRBM",
    "GaussianSpikeSlabRBMDensity",
    "IndependentBernoulli",
    "IndependentBernoulliDensity",
    "IndependentGaussian",
    "IndependentGaussianDensity",
    "NADEDensity",
    "RNADEDensity",
    "TractableDensity",
]
