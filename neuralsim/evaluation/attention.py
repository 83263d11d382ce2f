"""What a transformer world looks at while it dreams a frame: its attention over the frame's tokens and over the past.

A world keeps no attention weights: the fast paths never have them in memory. Here hooks note the normalised queries and
keys of each layer while one ordinary frame is dreamed, and the weights are computed again from them, with positions,
soft cap and groups of heads as the layer applies them. The dream itself is not changed, and nothing stays behind.

    attention = attention_maps(world, frames, actions)
    attention.maps[-1].mean      # over past frames, oldest first, then the frame itself; sums to 1

Legend: T past frames, N tokens of a frame, H query heads, G key/value heads, E size of a head, C frames in the ring,
S what is looked at (N tokens in space, past frames and the frame itself in time).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neuralsim.dynamics.transformer import TransformerDynamics
from neuralsim.pictures import DARK, beside, enlarge, label
from neuralsim.transformer import Layer, SpaceTimeTransformer, rotate, soft_cap
from neuralsim.world import World

_HEAT = ((18, 20, 26), (110, 30, 110), (230, 90, 50), (255, 210, 90))
"""Colours from no attention to the most."""
_PER_ROW = 5
_TILE = 128  # pixels that a frame is enlarged to, at least where it is smaller


@dataclass(frozen=True)
class AttentionMap:
    """Where the tokens of one frame look in one layer.

    Attributes:
        layer: Index of the layer.
        kind: ``"space"``, over the tokens of the same frame, or ``"time"``, each token over its own past.
        weights: ``(H, N, S)`` of each head and token; every row sums to 1. In time S is the past frames that the world
            remembers, oldest first, and the frame itself at the end.
        spatial: Which tokens show a place of the frame; the others hold action, noise level and registers.
    """

    layer: int
    kind: str
    weights: np.ndarray
    spatial: slice

    @property
    def per_head(self) -> np.ndarray:
        """``(H, S)`` over the tokens that show a place: what the picture is made from."""
        return self.weights[:, self.spatial].mean(1)

    @property
    def mean(self) -> np.ndarray:
        """``(S,)`` over heads, too."""
        return self.per_head.mean(0)


@dataclass(frozen=True)
class Attention:
    """The attention of one dreamed frame.

    Attributes:
        frame: ``(H, W, 3)`` uint8, the frame that was dreamed.
        grid: Rows and columns of the tokens that show a place.
        maps: One per layer that was asked for, in the order of the layers.
    """

    frame: np.ndarray
    grid: tuple[int, int]
    maps: list[AttentionMap]


@torch.inference_mode()
def attention_maps(
    world: World,
    frames: np.ndarray,
    actions: np.ndarray,
    layers: Sequence[int] | None = None,
    steps: int | None = None,
    denoising: int = 0,
    seed: int = 0,
) -> Attention | None:
    """Dreams one frame after real ones and says where its tokens looked.

    Args:
        world: A world whose dynamics is the transformer.
        frames: ``(T, H, W, 3)`` uint8, real frames.
        actions: ``(T, A)`` encoded: those between the frames, and the one that leads to the new frame.
        layers: Indices of layers; all by default.
        steps: Sampling steps K; the world's by default.
        denoising: Which of the K passes over the new frame is looked at. In the first the frame is still noise, and
            all that it becomes is read elsewhere.
        seed: Of the dream.

    Returns:
        None for a world without attention.

    Raises:
        ValueError: If there is no such layer or pass, or frames and actions do not fit the world or each other.
    """
    dynamics = world.dynamics
    if not isinstance(dynamics, TransformerDynamics):
        return None
    network = dynamics.network
    chosen = range(len(network.layers)) if layers is None else sorted(set(layers))
    steps = world.check_steps(world.config.sampling_steps if steps is None else steps)
    if chosen and not 0 <= chosen[0] <= chosen[-1] < len(network.layers):
        raise ValueError(f"layers are {list(chosen)}; this world has layers 0 to {len(network.layers) - 1}")
    if not 0 <= denoising < steps:
        raise ValueError(f"denoising is {denoising}; with {steps} sampling steps there are passes 0 to {steps - 1}")
    if len(actions) != len(frames):
        raise ValueError(
            f"there are {len(frames)} frames and {len(actions)} actions; there must be as many, the last of them leads "
            "to the frame that is dreamed"
        )
    before = world.actions.decode(actions[None, :-1]) if len(frames) > 1 else None
    state = world.start(frames[None], before, seed=seed)
    with noting(network) as noted:
        _, said = world.step(state, world.actions.decode(actions[None, -1]), steps=steps)
    memory = state.dynamics
    past = network.read(memory["keys"], memory["values"], memory["count"])
    maps, turn = [], 0
    for index in range(len(network.layers)):
        in_time = network.is_time_layer(index)
        if index in chosen:
            q, k = (tensors[denoising][0] for tensors in noted[index])
            if in_time:
                # A fresh ring: the oldest frame lies in the first slot.
                keys = torch.cat([past.layers[turn][0][0][..., past.seen[0], :], k], dim=-2)
                weights = attention_weights(q, keys, None, network.config.logit_cap)[..., 0, :].transpose(0, 1)
            else:
                q, k = (rotate(x, network.space_angles()) for x in (q, k))
                weights = attention_weights(q, k, network.space_mask(), network.config.logit_cap)
            kind = "time" if in_time else "space"
            maps.append(AttentionMap(index, kind, weights.float().cpu().numpy(), dynamics.tokens.spatial))
        turn += in_time
    rows = dynamics.tokens.rows
    places = dynamics.tokens.spatial.stop - dynamics.tokens.spatial.start
    return Attention(world.decode(said.latent)[0].cpu().numpy(), (rows, places // rows), maps)


def attention_weights(q: Tensor, k: Tensor, mask: Tensor | None, cap: float) -> Tensor:
    """The weights that :func:`neuralsim.transformer.attend` uses and does not keep.

    Args:
        q: ``(..., H, P, E)``, rotated.
        k: ``(..., G, S, E)``, rotated; query head i uses key head i // (H / G).
        mask: ``(P, S)`` True where a query may look; None: everywhere.
        cap: Soft cap of the logits; 0 for none.

    Returns:
        ``(..., H, P, S)`` in float32 at least; each row sums to 1.
    """
    products = q @ k.repeat_interleave(q.shape[-3] // k.shape[-3], dim=-3).mT
    wide = products.to(torch.promote_types(products.dtype, torch.float32))
    logits = soft_cap(wide * q.shape[-1] ** -0.5, cap)
    return (logits if mask is None else logits.masked_fill(~mask, -torch.inf)).softmax(-1)


Noted = list[tuple[list[Tensor], list[Tensor]]]
"""Per layer the normalised, unrotated queries and keys of each pass."""


@contextlib.contextmanager
def noting(network: SpaceTimeTransformer) -> Iterator[Noted]:
    """While this lasts, each layer's queries and keys are kept: one entry per pass over a frame."""
    noted: Noted = [([], []) for _ in network.layers]
    with contextlib.ExitStack() as hooks:
        for layer, (queries, keys) in zip(network.layers, noted, strict=True):
            assert isinstance(layer, Layer)
            for norm, kept in ((layer.q_norm, queries), (layer.k_norm, keys)):
                handle = norm.register_forward_hook(lambda _, given, out, kept=kept: kept.append(out))
                hooks.callback(handle.remove)
        yield noted


def attention_pictures(
    world: World, frames: np.ndarray, actions: np.ndarray, layers: Sequence[int] | None = None, steps: int | None = None
) -> list[tuple[str, np.ndarray, str]]:
    """The attention of one dreamed frame as pictures for the report.

    Args:
        world: Any world.
        frames: See :func:`attention_maps`.
        actions: Likewise.
        layers: Likewise, but by default the last layer in space and the last in time.
        steps: Sampling steps K.

    Returns:
        Title, picture ``(H, W, 3)`` uint8 and caption of each layer; nothing for a world without attention.

    Raises:
        ValueError: See :func:`attention_maps`.
    """
    attention = attention_maps(world, frames, actions, layers, steps)
    if attention is None:
        return []
    maps = attention.maps
    if layers is None:
        maps = list({found.kind: found for found in maps}.values())
    return [_space(attention, found) if found.kind == "space" else _time(found) for found in maps]


def _space(attention: Attention, found: AttentionMap) -> tuple[str, np.ndarray, str]:
    """The frame, and heat over it: the mean and each head."""
    scale = max(1, _TILE // attention.frame.shape[1])
    here = found.mean[found.spatial]
    tiles = [label(enlarge(attention.frame, scale), "dreamed")]
    for name, weights in [("mean", found.mean), *((f"head {i + 1}", row) for i, row in enumerate(found.per_head))]:
        heat = weights[found.spatial].reshape(attention.grid)
        tiles.append(label(over(enlarge(attention.frame, scale), heat), name))
    caption = (
        "Where the tokens of a frame look while it is being dreamed: the brighter a place, the more it is looked at "
        f"(each picture by its own brightest place). {1 - here.sum():.0%} of the looks go to tokens without a place "
        "(action, noise level, registers)."
    )
    return f"Layer {found.layer + 1}, within the frame", _grid(tiles), caption


def _time(found: AttentionMap) -> tuple[str, np.ndarray, str]:
    """A strip: frames from left to right, the mean and below it each head."""
    rows = np.concatenate([found.mean[None], found.per_head])
    past = rows.shape[1] - 1
    cells = heat_colours(rows / rows.max())
    side = max(12, 288 // rows.shape[1])
    strip = cells.repeat(14, axis=0).repeat(side, axis=1)
    strip = np.insert(strip, [14] * 4, DARK, axis=0)  # sets the mean apart
    caption = (
        "How far back the tokens of a frame look while it is being dreamed: one column per past frame, the oldest on "
        "the left and the frame itself on the right; the first row is the mean, the others are the heads; the "
        f"brighter, the more. {rows[0, -1]:.0%} of the looks stay with the frame itself."
    )
    return f"Layer {found.layer + 1}, through time", label(strip, f"{past} frames ago to now", size=12), caption


def over(frame: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Heat over a darkened frame.

    Args:
        frame: ``(H, W, 3)`` uint8.
        heat: ``(rows, columns)`` of at least 0; its highest value is the brightest.

    Returns:
        ``(H, W, 3)`` uint8.
    """
    height, width = frame.shape[:2]
    share = heat / max(heat.max(), 1e-12)
    share = share[np.arange(height) * heat.shape[0] // height][:, np.arange(width) * heat.shape[1] // width]
    mixed = 0.5 * frame * (1 - 0.8 * share[..., None]) + 0.8 * share[..., None] * heat_colours(share)
    return mixed.round().clip(0, 255).astype(np.uint8)


def heat_colours(share: np.ndarray) -> np.ndarray:
    """Shares ``(...)`` in [0, 1] as colours ``(..., 3)`` uint8, dark to bright."""
    stops = np.linspace(0, 1, len(_HEAT))
    channels = [np.interp(share, stops, [colour[i] for colour in _HEAT]) for i in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def _grid(tiles: list[np.ndarray]) -> np.ndarray:
    """Pictures of one size in rows."""
    blank = np.broadcast_to(np.array(DARK, np.uint8), tiles[0].shape)
    padded = tiles + [blank] * (-len(tiles) % _PER_ROW if len(tiles) > _PER_ROW else 0)
    rows = [padded[i : i + _PER_ROW] for i in range(0, len(padded), _PER_ROW)]
    return np.concatenate([beside([tile[None] for tile in row])[0] for row in rows])
