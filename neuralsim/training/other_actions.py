"""Weights of a model that knows other actions: what the same parts of an action do stays known."""

from __future__ import annotations

import torch
from gymnasium import spaces
from torch import Tensor

from neuralsim.actions import ActionCodec


def refit_actions(weights: dict[str, Tensor], theirs: ActionCodec, own: ActionCodec) -> dict[str, Tensor]:
    """Weights that see actions of the space ``own``, made of weights that see those of the space ``theirs``.

    Parts of the same name and space keep what they do: a world of the full human interface knows what "forward" does in
    a task with fewer buttons. Parts that only they have count as not used; parts that only the new space has begin
    without a weight.

    Args:
        weights: Of dynamics or heads. Those that see actions are found by their last dimension, which holds one or more
            encoded actions side by side, and by their name, which ends in ``action.weight``.
        theirs: Of the actions that they see.
        own: Of the actions that they are to see.

    Raises:
        ValueError: If the spaces have no part in common.
    """
    places = columns(own)
    shared = {name: part for name, part in columns(theirs).items() if name in places and part[2] == places[name][2]}
    if not shared:
        raise ValueError(f"the actions {own.space} have nothing in common with {theirs.space}")
    refitted = dict(weights)
    for name, weight in weights.items():
        if not name.endswith("action.weight") or weight.shape[-1] % theirs.size:
            continue
        old = weight.unflatten(-1, (-1, theirs.size))
        new = old.new_zeros(*old.shape[:-1], own.size)
        for part, (begin, size, _) in shared.items():
            new[..., places[part][0] : places[part][0] + size] = old[..., begin : begin + size]
        refitted[name] = new.flatten(-2)
        bias = name.removesuffix("weight") + "bias"
        if bias in weights:
            refitted[bias] = weights[bias] + (old @ unused(theirs, shared).to(old)).sum(-1)
    return refitted


def columns(codec: ActionCodec) -> dict[str, tuple[int, int, spaces.Space]]:
    """Where each part of a Dict action stands in an encoded action: begin, size and space by name."""
    found, begin = {}, 0
    if isinstance(codec.space, spaces.Dict):
        for name, part in codec.parts:
            found[name] = (begin, part.size, part.space)
            begin += part.size
    return found


def unused(codec: ActionCodec, but: object) -> Tensor:
    """An encoded action ``(A,)`` whose parts are not used, with zeros for the parts named in ``but``."""
    encoded = torch.zeros(codec.size)
    for name, (begin, _, space) in columns(codec).items():
        if name not in but and isinstance(space, spaces.Discrete):  # type: ignore[operator]
            encoded[begin] = 1.0  # a button that is not pressed; a turn of nothing is zero already
    return encoded
