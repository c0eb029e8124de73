"""What is read out of models agrees with densities, enumeration and draws made by another route."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor

from cgrnn import CGRNN, RNN, VRNN
from cgrnn.layers import EnergyDensity
from cgrnn.models import MODELS
from evaluation import exact, inside

FRAMES = 141
CHOSEN = (0, 60, 140)
UNITS, HIDDEN = 6, 5


def random_model(construction: str = "by spike", seed: int = 0) -> Any:
    """A continuous CGRNN with strong random weights, in double precision."""
    model = CGRNN(UNITS, HIDDEN, 7, visible="continuous", construction=construction).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            small = "raw_slack" in name or "log_" in name
            parameter.add_(
                torch.randn(parameter.shape, generator=generator) * (0.3 if small else 0.7)
            )
    return model


def sequence(frames: int = FRAMES, units: int = UNITS, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(frames, units, generator=generator, dtype=torch.float64)


def joint_precision(density: Any, h: Tensor) -> Tensor:
    """Of `(v, s)` given h: the second differences of the energy, which is a quadratic form."""
    size = density.visible_dim + density.hidden_dim

    def energy(x: Tensor) -> Tensor:
        v, s = x.split([density.visible_dim, density.hidden_dim], -1)
        found: Tensor = density.energy(v, h.expand(*s.shape), s)
        return found

    unit = torch.eye(size, dtype=h.dtype)
    pairs = energy((unit[:, None] + unit).reshape(-1, size)).view(size, size)
    single, none = energy(unit), energy(torch.zeros(1, size, dtype=h.dtype))
    return pairs - single[:, None] - single + none


@torch.no_grad()
@pytest.mark.parametrize("construction", ["by spike", "spectral"])
def test_precision_is_that_of_draws_from_the_energy(construction: str) -> None:
    """`C_h` against the sample covariance of 200,000 draws of v given h, made from the joint
    Gaussian of frame and slabs that the energy itself tells, at frames 0, 60 and 140."""
    model, frames, draws = random_model(construction), sequence(), 200_000
    found = inside.precisions(model, frames, CHOSEN, draws=2)
    density = model.density(frames[None])[0, list(CHOSEN)]
    assert 0 < found.spikes.mean() < 1  # spikes on and off
    expected = density.precision(torch.from_numpy(found.spikes)).numpy()
    assert np.array_equal(found.precision, expected)
    generator, worst, wrong = torch.Generator().manual_seed(2), 0.0, 0.0
    for n, matrix in enumerate(found.precision):
        assert np.array_equal(matrix, matrix.T) or np.allclose(matrix, matrix.T, rtol=0, atol=1e-12)
        assert np.linalg.eigvalsh(matrix).min() > 0
        joint = joint_precision(density[n], torch.from_numpy(found.spikes[n]))
        noise = torch.randn(draws, len(joint), generator=generator, dtype=torch.float64)
        root = torch.linalg.cholesky(joint)
        drawn = torch.linalg.solve_triangular(root.T, noise.T, upper=True)[:UNITS].numpy()
        sample = np.cov(drawn)

        def errors(covariance: np.ndarray, sample: np.ndarray = sample) -> float:
            diagonal = covariance.diagonal()
            variance = (np.outer(diagonal, diagonal) + covariance**2) / draws  # Wishart's
            return float((np.abs(sample - covariance) / np.sqrt(variance)).max())

        worst = max(worst, errors(np.linalg.inv(matrix)))
        assert np.allclose(found.covariance[n], np.linalg.inv(matrix), rtol=1e-9, atol=1e-12)
        given_slabs = density[n].visible_precision((torch.from_numpy(found.spikes[n]),)).numpy()
        wrong = max(wrong, errors(np.diag(1 / given_slabs)))
    entries = len(CHOSEN) * UNITS * (UNITS + 1) / 2
    allowed = norm.isf(1e-5 / (2 * entries))  # false alarm once in a hundred thousand, at the most
    assert worst < allowed < wrong


@torch.no_grad()
def test_averages_over_spikes_are_those_of_all_spikes() -> None:
    model, frames = random_model(), sequence()
    draws = 2000
    generator = torch.Generator().manual_seed(3)
    found = inside.precisions(model, frames, CHOSEN, draws, generator)
    density = model.density(frames[None])[0, list(CHOSEN)]
    states = exact.all_frames(HIDDEN)[:, None].expand(-1, len(CHOSEN), -1)
    probability = torch.sigmoid(density.hidden_logits(frames[list(CHOSEN)]))
    share = torch.where(states > 0, probability, 1 - probability).prod(-1)[..., None, None]
    precision = density.precision(states)
    covariance = torch.linalg.inv(precision)
    assert np.allclose(found.mean_precision, (share * precision).sum(0), rtol=1e-10, atol=1e-12)
    mean = (share * covariance).sum(0)
    error = ((share * (covariance - mean) ** 2).sum(0) / draws).sqrt()
    off = (torch.from_numpy(found.mean_covariance) - mean).abs()
    assert (off <= 6 * error + 1e-9).all()
    likeliest = share.squeeze().argmax(0)
    assert np.array_equal(found.spikes, exact.all_frames(HIDDEN)[likeliest])


@torch.no_grad()
def test_energies_of_a_small_model_are_exact() -> None:
    model = random_model()
    frames = sequence(9)
    found = inside.energies(model, frames)
    density = model.density(frames[None])[0]
    assert (found.kind, found.log_prob_stderr is not None) == ("exact", True)
    assert found.free_energy is not None and found.log_z is not None
    assert np.allclose(found.log_z, exact.log_partition(density))
    assert np.allclose(found.free_energy, density.free_energy(frames))
    expected = model.log_likelihood(frames[None], torch.tensor([9]), exact.log_partition)
    assert np.allclose(found.log_prob, expected.log_prob)


@torch.no_grad()
def test_annealed_energies_are_near_the_exact_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    model, frames = random_model(), sequence(6)
    true = inside.energies(model, frames)
    monkeypatch.setattr(inside, "_EXACT_COST", 0)
    seen: list[tuple[int, int]] = []
    found = inside.energies(
        model,
        frames,
        chains=100,
        levels=300,
        generator=torch.Generator().manual_seed(0),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert found.kind == "estimate" and found.log_prob_stderr is not None
    off = np.abs(found.log_prob - true.log_prob)
    assert (off < 6 * found.log_prob_stderr + 0.01).all()
    assert seen and all(0 < done <= total for done, total in seen)


@torch.no_grad()
def test_log_weights_are_those_of_the_chosen_frames() -> None:
    model, frames = random_model(), sequence()
    generator = torch.Generator().manual_seed(0)
    found = inside.log_weights(model, frames, CHOSEN, 40, 200, generator)
    assert found.log_weights.shape == (40, 3)
    true = exact.log_partition(model.density(frames[None])[0, list(CHOSEN)])
    assert ((found.log_z - true).abs() < 6 * found.stderr + 0.02).all()


@torch.no_grad()
def test_given_frames_have_no_likelihood() -> None:
    frames = (sequence(8) > 0).float()
    for model in (RNN(UNITS, 4), CGRNN(UNITS, 3, 4), VRNN(UNITS, 2, 4, 3)):
        model.eval().given_frames = 2
        found = inside.energies(model, frames, paths=3)
        assert np.isnan(found.log_prob[:2]).all() and np.isfinite(found.log_prob[2:]).all()
        assert found.kind == {"rnn": "exact", "cgrnn": "exact", "vrnn": "lower bound"}[model.name]


@torch.no_grad()
def test_bounds_of_the_frames_sum_to_the_bound_of_single_paths() -> None:
    torch.manual_seed(0)
    model, frames = VRNN(UNITS, 2, 4, 3).eval(), (sequence(8) > 0).float()
    for parameter in model.parameters():
        parameter.mul_(3)  # a bound that varies with the path
    paths = 100
    found = inside.energies(model, frames, paths=paths, generator=torch.Generator().manual_seed(1))
    assert found.log_prob_stderr is not None and (found.log_prob_stderr > 0).all()
    length, random = torch.tensor([8]), torch.Generator().manual_seed(2)
    walk = model.walk(frames[None], length, 4000, random)
    single = sum(walk.step() for _ in range(8))[:, 0].double()
    error = float(single.std()) * (1 / len(single) + 1 / paths) ** 0.5
    assert abs(found.log_prob.sum() - float(single.mean())) < 5 * error
    assert error < 0.05 * abs(found.log_prob.sum())  # it could fail


@torch.no_grad()
def test_prediction_and_reconstruction_are_means_of_draws() -> None:
    torch.manual_seed(0)
    model, frames = RNN(UNITS, 4).eval(), (sequence(8) > 0).float()
    draws = 4000
    found = inside.prediction(model, frames, draws, torch.Generator().manual_seed(0))
    probability = torch.sigmoid(model.density(frames[None]).logits)[0].numpy()
    error = np.sqrt(probability * (1 - probability) / draws)
    assert (np.abs(found - probability) < 6 * error).all()
    again = inside.reconstruction(model, frames, draws, torch.Generator().manual_seed(0))
    assert np.array_equal(again, found)  # without latents


@torch.no_grad()
@pytest.mark.parametrize("name", MODELS)
def test_every_model_gives_arrays_or_says_in_one_line_why_not(name: str) -> None:
    kind = MODELS[name].kinds[-1]
    units = {"notes": 1}.get(kind, UNITS)
    model = MODELS[name](visible_dim=units, visible=kind).eval()
    frames = sequence(5, units).float()
    frames = {"notes": (frames > 0).float() * 3, "binary": (frames > 0).float()}.get(kind, frames)
    features = inside.activations(model, frames)
    assert features.shape[0] == 5 and np.isfinite(features).all() and inside.feature_name(model)
    found = inside.energies(model, frames, chains=4, levels=5, paths=2)
    assert np.isfinite(found.log_prob).all()
    has_energy = isinstance(getattr(model, "density", lambda x: None)(frames[None]), EnergyDensity)
    assert (found.log_z is not None) == has_energy == (name in ("cgrnn", "rnn-ssrbm", "rnn-rbm"))
    for function, owners in (
        (inside.filters, "cgrnn rnn-ssrbm rnn-rbm rnn-nade lstm-nade rnn-rnade"),
        (lambda m: inside.log_weights(m, frames, [0], 4, 5), "cgrnn rnn-ssrbm rnn-rbm"),
        (lambda m: inside.precisions(m, frames, [0], 2), "cgrnn rnn-ssrbm"),
    ):
        if name in owners.split():
            assert function(model) is not None
            continue
        with pytest.raises(ValueError, match=f"^{name}: ") as error:
            function(model)
        assert "\n" not in str(error.value) and "cgrnn" in str(error.value)


def test_models_without_a_covariance_are_told_why() -> None:
    frames = (sequence(4) > 0).float()
    for model, why in (
        (CGRNN(UNITS), "independent given h and s"),
        (MODELS["rnn-rbm"](UNITS, visible="continuous"), "diagonal"),
        (MODELS["vrnn"](UNITS), "no spikes"),
    ):
        with pytest.raises(ValueError, match=why):
            inside.precisions(model.eval(), frames, [0])


@torch.no_grad()
def test_filters_of_the_spectral_construction_are_those_in_force() -> None:
    model = random_model("spectral")
    density = model.density(sequence(2)[None])
    assert np.allclose(inside.filters(model), density.W)
    assert not np.allclose(inside.filters(model), model.layer.W)
    free = random_model()
    assert np.array_equal(inside.filters(free), free.layer.W)
