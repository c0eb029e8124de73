"""Have the chains mixed? Effective sample size and R-hat of scalar traces."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from samplers.gibbs import chain

R_HAT_WANTED = 1.05
ESS_WANTED = 100.0  # the standard error of a mean is then a tenth of the deviation
MIN_DRAWS = 4
CHANCE = 0.001  # expected number of still chains below which one is not chance


@dataclass(frozen=True)
class Diagnostics:
    """What a trace says of its chains; every tensor has the batch shape `(*B,)` of the trace.

    Attributes:
        draws: draws of each chain.
        chains: number of chains.
        mean: mean over all draws.
        stderr: Monte-Carlo standard error of `mean`, the deviation of the draws by `√ess`.
        ess: effective sample size, the independent draws that would give the mean as well.
        autocorrelation_time: integrated autocorrelation time τ, draws for each effective one; 1 for
            independent draws.
        r_hat: split R-hat, 1 when the halves of all chains tell the same; infinite when no chain
            moves and they stand apart.
        stuck: chains that never move while others do, and not by chance as where one value holds
            nearly all the mass. R-hat can miss them: a chain that stands on the others' mean agrees
            with them.
    """

    draws: int
    chains: int
    mean: Tensor
    stderr: Tensor
    ess: Tensor
    autocorrelation_time: Tensor
    r_hat: Tensor
    stuck: Tensor

    @property
    def mixed(self) -> Tensor:
        """R-hat below 1.05, at least 100 effective draws and no chain stuck, `(*B,)`."""
        return (self.r_hat < R_HAT_WANTED) & (self.ess >= ESS_WANTED) & (self.stuck == 0)

    def warning(self) -> str:
        """One line on what is amiss, by the worst of the batch; empty when all have mixed."""
        mixed = self.mixed
        if mixed.all():
            return ""
        where = f" in {int((~mixed).sum())} of {mixed.numel()} densities" * (mixed.numel() > 1)
        line = (
            f"chains have not mixed{where}: R-hat {float(self.r_hat.max()):.2f} (below "
            f"{R_HAT_WANTED} wanted), {float(self.ess.min()):.0f} effective of "
            f"{self.draws * self.chains} draws ({ESS_WANTED:.0f} wanted)"
        )
        if self.stuck.any():
            line += f", {int(self.stuck.max())} of {self.chains} chains never moved"
        return line + "; run more sweeps"


@torch.no_grad()
def diagnose(trace: Tensor) -> Diagnostics:
    """Effective sample size, R-hat and standard error of scalar traces.

    Formula: every chain is cut into halves, `M` of `N` draws each (the middle one of an odd number
    is left out). With `W` the mean of their variances and `B` the variance of their means,
        `var⁺ = (N-1)/N W + B`,  `R-hat = √(var⁺ / W)`,  `ρ_t = 1 - (W - mean acov_t) / var⁺`,
        `τ = -1 + 2 Σ_k P_k`,  `P_k = ρ_2k + ρ_2k+1`,  `ess = M N / τ`.
    The sum goes over Geyer's initial monotone positive sequence: it ends before the first `P_k`
    that is not positive, and no `P_k` counts for more than the one before it. The first lag left
    out is added once if positive, and `τ ≥ 1 / log₁₀(M N)`, as in Stan.

    Source: Vehtari, Gelman, Simpson, Carpenter & Bürkner 2021; Geyer 1992. Not rank-normalised:
    chains of equal means and unequal variances are not told apart.

    A trace of one value alone, such as that of a unit that is always silent, says nothing against
    the chains: its R-hat is 1, all of its draws are effective and its standard error is 0. Chains
    that all start at one frame and never leave it look just so: start them apart.

    Args:
        trace: one scalar of each chain after each sweep, `(draws, chains, *B)`.

    Raises:
        ValueError: when the trace has fewer than 4 draws, no chains or values that are not finite.

    Example:
        >>> noise = torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
        >>> bool(diagnose(noise).mixed), diagnose(noise).warning()
        (True, '')
        >>> diagnose(noise + torch.tensor([0.0, 0.0, 0.0, 2.0])).warning()[:34]
        'chains have not mixed: R-hat 1.34 '
    """
    if trace.dim() < 2 or trace.shape[0] < MIN_DRAWS or trace.shape[1] < 1:
        raise ValueError(
            f"trace must be (draws, chains, *batch) of at least {MIN_DRAWS} draws, got "
            f"{tuple(trace.shape)}"
        )
    if not trace.isfinite().all():
        raise ValueError("trace holds values that are not finite: the chains have diverged")
    draws, chains = trace.shape[:2]
    origin = trace[:1, :1].double()
    x = trace.double() - origin  # a constant trace is now exactly zero
    length = draws // 2
    halves = torch.cat([x[:length], x[-length:]], dim=1)
    means = halves.mean(0)
    covariance = _autocovariance(halves - means).mean(1)
    within = covariance[0] * length / (length - 1)
    total = covariance[0] + means.var(0)
    constant = (x == 0).all(0).all(0)
    time = _autocorrelation_time(1 - (within - covariance) / total.where(~constant, 1.0))
    kept = 2 * length * chains
    time = time.clamp(min=1 / math.log10(kept)).where(~constant, 1.0)
    ess = kept / time
    return Diagnostics(
        draws=draws,
        chains=chains,
        mean=(origin + x.mean((0, 1), keepdim=True))[0, 0],
        stderr=x.flatten(0, 1).std(0) / ess.sqrt(),
        ess=ess,
        autocorrelation_time=time,
        r_hat=(total / within).sqrt().where(~constant, 1.0),
        stuck=_stuck(x) * ~constant,
    )


def _stuck(x: Tensor) -> Tensor:
    """Chains of `x` `(N, M, *B)` that keep one value, unless that is chance, `(*B,)`.

    Where the chains that move hold their value from one draw to the next at a rate `h`, half of the
    moves at most leave any one value, so that a chain keeps it with probability `((1+h)/2)^(N-1)`.
    """
    holds = x[1:] == x[:-1]
    still = holds.all(0)
    steps = len(holds) * (~still).sum(0)
    rate = (holds & ~still).sum((0, 1)) / steps.clamp(min=1)
    expected = x.shape[1] * ((1 + rate) / 2) ** len(holds)
    return still.sum(0) * (expected < CHANCE)


def _autocovariance(x: Tensor) -> Tensor:
    """`(1/N) Σ_n x_n x_n+t` of centred `x` `(N, ...)` at every lag `t < N`, by its spectrum."""
    length = x.shape[0]
    spectrum = torch.fft.rfft(x, n=2 * length, dim=0)  # the padding keeps the ends apart
    return torch.fft.irfft(spectrum.abs().square(), n=2 * length, dim=0)[:length] / length


def _autocorrelation_time(rho: Tensor) -> Tensor:
    """`τ` of autocorrelations `(N, *B)` over their initial monotone positive sequence, `(*B,)`."""
    rho[0] = 1.0
    even, odd = rho[0:-1:2], rho[1::2]
    pairs = even + odd
    inside = (pairs > 0).cumprod(0)
    left_out = even.gather(0, inside.sum(0, keepdim=True).clamp(max=len(pairs) - 1))[0]
    left_out = left_out.clamp(min=0) * (1 - inside[-1])
    return -1 + 2 * (pairs.cummin(0).values * inside).sum(0) + left_out


@dataclass(frozen=True)
class Watched:
    """Where watched chains ended and what their traces say, by the name of the statistic.

    Attributes:
        frames: where the chains stand, `(*S, *B, V)`.
        traces: each statistic after each sweep, `(sweeps, chains, *B)`.
        diagnostics: what `diagnose` says of each.
    """

    frames: Tensor
    traces: dict[str, Tensor]
    diagnostics: dict[str, Diagnostics]

    def warning(self) -> str:
        """A line for each statistic whose chains have not mixed; empty when all have."""
        lines = {name: found.warning() for name, found in self.diagnostics.items()}
        return "\n".join(f"{name}: {line}" for name, line in lines.items() if line)


@torch.no_grad()
def watch(
    density: Any,
    v: Tensor,
    sweeps: int,
    generator: torch.Generator | None = None,
    step: Callable[[Tensor], Tensor] | None = None,
    statistics: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
) -> Watched:
    """Run chains from frames `v` and diagnose the traces of some statistics.

    Starts far apart make R-hat sharp; those of a density are `density.sample_base(shape)`. What the
    chains need to forget their starts counts against them: run `samplers.chain` before to leave it
    out.

    Args:
        density: energy density with batch shape `(*B,)`.
        v: frames to start from, `(*S, *B, V)`; the sample dimensions are the chains.
        sweeps: sweeps to make, at least 4.
        generator: source of the draws.
        step: the sweep; None for a Gibbs sweep of the density.
        statistics: functions of the frames, `(*S, *B, V)` to `(*S, *B)`; None for the free energy
            and the mean of the frame, which is the share of active units where it is binary.

    Raises:
        ValueError: when there are fewer than 4 sweeps or a statistic is not finite.

    Example:
        >>> from cgrnn.layers import BernoulliRBM
        >>> density, generator = BernoulliRBM(5, 3)(None), torch.Generator().manual_seed(0)
        >>> watched = watch(density, density.sample_base((4,), generator), 200, generator)
        >>> watched.frames.shape, list(watched.traces), watched.warning()
        (torch.Size([4, 5]), ['free energy', 'mean of the frame'], '')
    """
    if sweeps < MIN_DRAWS:
        raise ValueError(f"sweeps must be at least {MIN_DRAWS} to tell mixing, got {sweeps}")
    statistics = statistics or {
        "free energy": density.free_energy,
        "mean of the frame": lambda frames: frames.mean(-1),
    }
    recorded: dict[str, list[Tensor]] = {name: [] for name in statistics}
    for _ in range(sweeps):
        v = chain(density, v, 1, generator) if step is None else step(v)
        for name, statistic in statistics.items():
            recorded[name].append(statistic(v))
    batch = density.batch_shape
    traces = {name: torch.stack(rows).view(sweeps, -1, *batch) for name, rows in recorded.items()}
    return Watched(v, traces, {name: diagnose(trace) for name, trace in traces.items()})
