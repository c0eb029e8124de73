"""The mean of a loss over many frames, taken in pieces that stay in the processor's cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

PIECE, GPU_PIECE = 2048, 65536  # frames; a GPU has less to gain from its cache than from size

Index = tuple[Tensor, ...]
Loss = Callable[[Tensor, Index], Tensor]


def mean_in_pieces(
    loss: Loss, contexts: Tensor, index: Index, parameters: Iterable[Tensor]
) -> Tensor:
    """Mean over frames of a loss that each has by its context and by shared parameters.

    Each piece goes backward as soon as it has gone forward. What a density keeps for its gradient
    is never held for all frames at once.

    Args:
        loss: given the contexts of some frames `(n, R)` and their places, their losses `(n,)`.
        contexts: `(*B, R)`.
        index: places of the frames that count, as many tensors `(M,)` as `B` has dimensions.
        parameters: all others that the loss depends on.
    """
    mean: Tensor = _MeanInPieces.apply(loss, index, contexts, *parameters)
    return mean


def _pieces(index: Index) -> list[Index]:
    """The places in pieces of even sizes."""
    largest = GPU_PIECE if index[0].is_cuda else PIECE
    count = -(-len(index[0]) // largest)
    return list(zip(*(places.tensor_split(count) for places in index), strict=True))


class _MeanInPieces(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, loss, index, contexts, *parameters
    ):
        wanted = [parameter for parameter in parameters if parameter.requires_grad]
        d_contexts = torch.zeros_like(contexts)
        d_wanted = [torch.zeros_like(parameter) for parameter in wanted]
        total = torch.zeros((), device=contexts.device)
        for places in _pieces(index):
            with torch.enable_grad():
                context = contexts.detach()[places].requires_grad_()
                share = loss(context, places).sum() / len(index[0])
            d_context, *found = torch.autograd.grad(share, [context, *wanted], allow_unused=True)
            d_contexts[places] = d_context
            for gradient, part in zip(d_wanted, found, strict=True):
                if part is not None:
                    gradient += part
            total = total + share.detach()
        ctx.save_for_backward(d_contexts, *d_wanted)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        found = iter([gradient * grads[0] for gradient in ctx.saved_tensors])
        return None, None, *(next(found) if need else None for need in ctx.needs_input_grad[2:])
