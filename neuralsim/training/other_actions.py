"""Weights of a model that knows other actions: what the same parts of an action do stays known."""

from __future__ import annotations

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from neuralsim.actions import ActionCodec

LAYERS = ("action.weight", "action_in.weight")
"""How the names of the weights end that see actions; their last dimension holds one or more encoded ones."""


def refit_actions(weights: dict[str, Tensor], theirs: ActionCodec, own: ActionCodec) -> dict[str, Tensor]:
    """Weights that see actions of the space ``own``, made of weights that see those of the space ``theirs``.

    Parts of the same name and kind keep what they do: a world of the full human interface knows what "forward" does in
    a task with fewer buttons, and what a turn of the camera does where it may turn less. Parts that only they have
    count as not used; parts that only the new space has begin without a weight.

    Args:
        weights: Of dynamics, of heads, or of both.
        theirs: Of the actions that they see, a Dict.
        own: Of the actions that they are to see, a Dict.

    Raises:
        ValueError: If the spaces have no part in common.
    """
    change, always = _translation(theirs, own)
    refitted = dict(weights)
    for name, weight in weights.items():
        if not name.endswith(LAYERS) or weight.shape[-1] % theirs.size:
            continue
        old = weight.unflatten(-1, (-1, theirs.size))
        refitted[name] = (old @ change.to(old)).flatten(-2)
        # What is always so goes into the bias: the layer's own, or that of the layer whose result it is added to.
        layer, _, _ = name.rpartition(".")
        above = layer.rpartition(".")[0]
        bias = next(b for b in (f"{layer}.bias", f"{above}.hidden.bias".lstrip(".")) if b in weights)
        refitted[bias] = refitted[bias] + (old @ always.to(old)).sum(-1)
    return refitted


def _translation(theirs: ActionCodec, own: ActionCodec) -> tuple[Tensor, Tensor]:
    """Matrix and vector that make an encoded action of theirs of one of ours: theirs = matrix @ ours + vector."""
    places = own.places()
    change, always = torch.zeros(theirs.size, own.size), torch.zeros(theirs.size)
    shared = 0
    for name, (begin, part) in theirs.places().items():
        rows = slice(begin, begin + part.size)
        factors = None if name not in places else _factors(part.space, places[name][1].space)
        if factors is None:
            always[rows] = idle(part)
            continue
        shared += 1
        start = places[name][0]
        change[rows, start : start + part.size] = torch.eye(part.size) * factors[0]
        always[rows] = factors[1]
    if not shared:
        raise ValueError(f"the actions {own.space} have nothing in common with {theirs.space}")
    return change, always


def _factors(theirs: spaces.Space, own: spaces.Space) -> tuple[Tensor, Tensor] | None:
    """How an encoded value of theirs follows from one of ours, as factor and summand; None if it does not."""
    if theirs == own:
        return torch.ones(()), torch.zeros(())
    if not (isinstance(theirs, spaces.Box) and isinstance(own, spaces.Box) and theirs.shape == own.shape):
        return None
    (middle, half), (new_middle, new_half) = (
        (((box.high + box.low) / 2).ravel(), np.maximum((box.high - box.low) / 2, 1e-12).ravel())
        for box in (theirs, own)
    )
    return torch.from_numpy(new_half / half).float()[:, None], torch.from_numpy((new_middle - middle) / half).float()


def idle(codec: ActionCodec) -> Tensor:
    """An encoded action ``(A,)`` that does nothing: the first of every choice, no button, no turn."""
    encoded = torch.zeros(codec.size)
    for begin, _, kind in codec.blocks():
        if kind == "choice":
            encoded[begin] = 1.0
    return encoded
