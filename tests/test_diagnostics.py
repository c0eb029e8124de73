"""Effective sample size and R-hat against loops over the formula and traces of known mixing."""

from __future__ import annotations

import math

import pytest
import torch
from densities import LAYERS, generator, random_density

from samplers import chain, diagnose, watch


def autoregression(rho, shape, seed):
    """Stationary `x_n = ρ x_n-1 + ε`, `shape = (draws, ...)`; its τ is (1 + ρ) / (1 - ρ)."""
    noise = torch.randn(shape, dtype=torch.float64, generator=generator(seed))
    x = noise.clone()
    x[0] /= math.sqrt(1 - rho**2)
    for n in range(1, shape[0]):
        x[n] += rho * x[n - 1]
    return x


def literal(trace):
    """R-hat and effective sample size of `(draws, chains)`, by loops over the formulas."""
    columns = [[float(x) for x in column] for column in trace.T]
    n = len(columns[0]) // 2
    chains = [half for column in columns for half in (column[:n], column[-n:])]
    means = [sum(chain) / n for chain in chains]

    def covariance(lag):
        each = []
        for trace, mean in zip(chains, means, strict=True):
            terms = [(trace[i] - mean) * (trace[i + lag] - mean) for i in range(n - lag)]
            each.append(sum(terms) / n)
        return sum(each) / len(each)

    within = covariance(0) * n / (n - 1)
    grand = sum(means) / len(means)
    between = sum((mean - grand) ** 2 for mean in means) / (len(means) - 1)
    total = (n - 1) / n * within + between
    rho = [1.0] + [1 - (within - covariance(lag)) / total for lag in range(1, n)]
    tau, lag, last = -1.0, 0, math.inf
    while lag + 1 < n and rho[lag] + rho[lag + 1] > 0:
        last = min(last, rho[lag] + rho[lag + 1])
        tau += 2 * last
        lag += 2
    if lag + 1 < n:
        tau += max(rho[lag], 0.0)
    size = n * len(chains)
    return math.sqrt(total / within), size / max(tau, 1 / math.log10(size))


@pytest.mark.parametrize("rho", [0.0, 0.7, -0.6, 0.99])
@pytest.mark.parametrize("draws, chains", [(4, 3), (61, 1), (120, 4)])
def test_the_formulas_written_out_in_loops(rho, draws, chains):
    trace = autoregression(rho, (draws, chains, 2, 3), 0)
    trace = trace + 0.3 * torch.arange(chains).view(-1, 1, 1)
    found = diagnose(trace)
    for place in [(0, 0), (1, 2)]:
        r_hat, ess = literal(trace[:, :, place[0], place[1]])
        assert float(found.r_hat[place]) == pytest.approx(r_hat, rel=1e-9)
        assert float(found.ess[place]) == pytest.approx(ess, rel=1e-9)


def test_values_of_another_package():
    """`arviz` 0.23: ess(method="mean"), rhat(method="split"), mcse(method="mean")."""
    n, c = torch.arange(200.0).double()[:, None], torch.arange(3.0).double()
    found = diagnose(0.5 * torch.cos(n / 9 + c) + torch.sin((n + c) ** 2) + c / 5)
    assert float(found.ess) == pytest.approx(137.002723603953, rel=1e-9)
    assert float(found.r_hat) == pytest.approx(1.0177790333410097, rel=1e-9)
    assert float(found.stderr) == pytest.approx(0.06657261861339318, rel=1e-9)


@pytest.mark.parametrize("rho", [-0.4, 0.0, 0.5, 0.9])
def test_autoregressions_have_their_autocorrelation_time(rho):
    time = diagnose(autoregression(rho, (4000, 4, 100), 1)).autocorrelation_time
    truth = (1 + rho) / (1 - rho)
    # The monotone sequence stops at noise, which costs some percent at any finite length.
    error = float(time.std()) / math.sqrt(len(time)) + 0.01 * truth
    assert abs(float(time.mean()) - truth) < 5 * error


def test_the_standard_error_is_the_deviation_of_means():
    found = diagnose(autoregression(0.8, (1000, 4, 1000), 2))
    scores = found.mean / found.stderr
    assert float(scores.square().mean()) == pytest.approx(1.0, abs=0.05 + 5 * math.sqrt(2 / 1000))
    naive = autoregression(0.8, (1000, 4, 1000), 2).flatten(0, 1).std(0) / math.sqrt(4000)
    assert float((found.mean / naive).square().mean()) > 5  # as if the draws were independent


@pytest.mark.parametrize("draws, chains", [(200, 4), (1000, 1), (20, 100)])
def test_white_noise_is_rarely_flagged(draws, chains):
    noise = torch.randn(draws, chains, 5000, generator=generator(3))
    assert float((~diagnose(noise).mixed).double().mean()) < 0.002


def test_chains_in_different_modes_are_flagged():
    noise = torch.randn(500, 4, 200, generator=generator(4))
    apart = noise + torch.tensor([0.0, 0.0, 0.0, 1.0]).view(-1, 1)
    assert not diagnose(apart).mixed.any()
    # Means 0, 0, 0, 1 have variance 1/4; the halves of four chains, 3/14.
    assert float(diagnose(apart).r_hat.mean()) == pytest.approx(math.sqrt(1 + 3 / 14), abs=0.01)


def test_a_common_drift_is_flagged():
    drift = torch.linspace(0, 1, 500).view(-1, 1) * 2
    assert not diagnose(torch.randn(500, 4, generator=generator(5)) + drift).mixed


def test_few_effective_draws_are_flagged_though_r_hat_is_low():
    slow = diagnose(autoregression(0.97, (1000, 4, 200), 6))
    few = (slow.r_hat < 1.05) & (slow.ess < 100)
    assert few.any() and not slow.mixed[few].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_constant_trace_says_nothing_against_the_chains(dtype):
    found = diagnose(torch.full((101, 3), 0.1, dtype=dtype))
    assert found.mixed and found.warning() == ""
    assert (float(found.r_hat), float(found.ess), float(found.stderr)) == (1.0, 300.0, 0.0)
    assert float(found.autocorrelation_time) == 1.0
    assert float(found.mean) == pytest.approx(0.1)


def test_chains_that_never_move_are_flagged():
    apart = torch.tensor([0.1, 0.3, 0.1]).expand(100, 3)
    found = diagnose(apart)
    assert float(found.r_hat) > 1e6 and float(found.ess) < 4 and int(found.stuck) == 3
    assert "3 of 3 chains never moved" in found.warning()

    noise = torch.randn(1000, 4, generator=generator(7))
    noise[:, 2] = 0.0  # on the mean of the others: R-hat alone is content
    found = diagnose(noise)
    assert float(found.r_hat) < 1.05 and int(found.stuck) == 1 and not found.mixed
    assert "1 of 4 chains never moved" in found.warning()


def test_a_chain_that_keeps_a_common_value_by_chance_is_not_stuck():
    """A unit that is on in 98 of 100 draws: in some of the traces, one chain never sees it off."""
    on = (torch.rand(200, 4, 1000, generator=generator(10)) < 0.98).double()
    by_chance = (on.amax(0) == on.amin(0)).any(0)
    assert by_chance.double().mean() > 0.03
    assert (diagnose(on).stuck > 0).double().mean() < 0.005
    on[:, 0] = 1.0
    on[:, 1:] = (torch.rand(200, 3, 1000, generator=generator(11)) < 0.7).double()
    assert (diagnose(on).stuck == 1).all()


def test_traces_of_a_batch_do_not_touch_each_other():
    noise = torch.randn(300, 4, generator=generator(8)).double()
    still = torch.full_like(noise, 2.0)
    stuck = torch.arange(4.0).expand(300, 4).double()
    found = diagnose(torch.stack([noise, still, stuck], -1))
    for place, trace in enumerate((noise, still, stuck)):
        alone = diagnose(trace)
        for name in ("mean", "stderr", "ess", "autocorrelation_time", "r_hat", "stuck"):
            assert torch.allclose(
                getattr(found, name)[place].double(), getattr(alone, name).double()
            )
    assert not found.r_hat.isnan().any() and not found.ess.isnan().any()
    assert found.mixed.tolist() == [True, True, False]


def test_the_warning_says_what_is_wrong_and_what_to_do():
    trace = torch.randn(500, 4, 3, generator=generator(9))
    trace[:, 0, 1] += 3.0
    found = diagnose(trace)
    line = found.warning()
    assert "\n" not in line and "in 1 of 3 densities" in line and "run more sweeps" in line
    assert f"R-hat {float(found.r_hat[1]):.2f} (below 1.05 wanted)" in line
    assert f"{float(found.ess[1]):.0f} effective of 2000 draws (100 wanted)" in line


@pytest.mark.parametrize("shape", [(10,), (3, 4), (10, 0)])
def test_traces_that_are_too_short_are_refused(shape):
    with pytest.raises(ValueError, match="at least 4 draws"):
        diagnose(torch.zeros(shape))


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="not finite"):
        diagnose(torch.tensor([0.0, 1.0, math.nan, 2.0, 3.0]).view(5, 1))


def test_too_few_sweeps_are_refused():
    density = random_density(LAYERS[0], 4, 3, 0)
    with pytest.raises(ValueError, match="sweeps must be at least 4"):
        watch(density, torch.zeros(3, 4), 0)


@pytest.mark.parametrize("kind", LAYERS)
def test_watched_chains_are_those_that_gibbs_makes(kind):
    density = random_density(kind, 6, 4, 0)
    start = density.sample_base((3, 2), generator(0))
    watched, random, v = watch(density, start, 5, generator(1)), generator(1), start
    for sweep in range(5):
        v = chain(density, v, 1, random)
        energy = watched.traces["free energy"][sweep].view(3, 2)
        assert torch.allclose(energy, density.free_energy(v))
    assert torch.equal(watched.frames, v)
    assert watched.traces["mean of the frame"].shape == (5, 6)


def test_a_step_and_statistics_of_ones_own():
    density = random_density(LAYERS[0], 4, 3, 0)
    density = density[None].flatten()  # batch shape (1,)
    watched = watch(
        density,
        torch.zeros(7, 1, 4),
        10,
        step=lambda v: v + 1,
        statistics={"first": lambda v: v[..., 0], "sum": lambda v: v.sum(-1)},
    )
    assert torch.equal(watched.frames, torch.full((7, 1, 4), 10.0))
    assert torch.equal(
        watched.traces["first"], torch.arange(1.0, 11).view(10, 1, 1).expand(10, 7, 1)
    )
    assert [line[:5] for line in watched.warning().split("\n")] == ["first", "sum: "]
    assert all(found.r_hat.shape == (1,) for found in watched.diagnostics.values())
