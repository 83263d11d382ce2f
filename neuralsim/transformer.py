"""A space-time transformer over frames of tokens (Dreamer 4, arXiv 2509.24527, section 3.3).

Notable here:
- every layer is either space-only (the tokens of one frame) or time-only (one token through the frames,
  causal); every n-th layer is a time layer;
- pre-RMSNorm, QK-norm, grouped-query attention, a soft cap on the attention logits, SwiGLU, no biases;
- RoPE: two axes in space, frames in time. Cached keys are kept unrotated and are rotated by their age when
  they are read, so positions stay small and exact however long a dream lasts;
- the cache is a ring of fixed size that is never written in place: a step returns a new one.

Legend: B lanes, T query frames, S key frames, C frames in the ring, N tokens of a frame, D channels,
H query heads, G key/value heads, R = H / G, E size of a head, L time layers, P positions of one attention.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """x / rms(x) * scale over the last dimension; half precision is normalised in float32."""

    def __init__(self, size: int, epsilon: float = 1e-6) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(size))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(..., size)`` to the same shape and dtype."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.epsilon)
        return (wide * self.scale).to(x.dtype)


class SwiGLU(nn.Module):
    """Gated feed-forward network: W2 (silu(W1 x) * W3 x)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_and_value = nn.Linear(width, 2 * hidden, bias=False)
        self.out = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(..., D)`` to ``(..., D)``."""
        gate, value = self.gate_and_value(x).chunk(2, dim=-1)
        return self.out(F.silu(gate) * value)


def rope_angles(positions: Tensor, size: int, base: float) -> Tensor:
    """Angles of rotary embeddings: position times base^(-i / size), i = 0 .. size - 1.

    Args:
        positions: ``(...)`` integers.
        size: How many angles (half of the channels they turn).
        base: The slowest angle turns about ``base`` times slower than the fastest.

    Returns:
        ``(..., size)`` float32, always: half precision would blur positions.
    """
    rates = base ** (-torch.arange(size, device=positions.device, dtype=torch.float32) / size)
    return positions[..., None].float() * rates


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """RoPE (Su et al. 2021): turns channels i and i + E/2 of ``x (..., P, E)`` by ``angles (..., P, E/2)``.

    The product of a query and a key then depends on the difference of their angles alone.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    cos, sin = angles.to(wide).cos().to(x.dtype), angles.to(wide).sin().to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


def soft_cap(logits: Tensor, cap: float) -> Tensor:
    """The bounded logits cap * tanh(logits / cap), nearly unchanged where they are small; 0 means no cap."""
    return cap * torch.tanh(logits / cap) if cap else logits


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, cap: float) -> Tensor:
    """Grouped-query attention with capped logits.

    Args:
        q: ``(..., H, P, E)``.
        k: ``(..., G, S, E)``; query head i uses key/value head i // (H / G).
        v: ``(..., G, S, E)``.
        mask: ``(..., P, S)`` True where a query may look, broadcast over the leading dimensions; None:
            everywhere. Every query must be allowed at least one key.
        cap: Soft cap of the logits; 0 for none, which uses PyTorch's fused attention.

    Returns:
        ``(..., P, H * E)``.
    """
    queries, repeats = q.shape[-2], q.shape[-3] // k.shape[-3]
    # The R query heads of a group are rows of one product, so keys and values are never repeated in memory.
    q = rearrange(q, "... (g r) p e -> ... g (r p) e", r=repeats)
    if mask is not None:
        mask = torch.cat([mask] * repeats, dim=-2)[..., None, :, :]
    if cap:
        logits = _capped(q @ k.mT, q.shape[-1], cap)
        logits = logits if mask is None else logits.masked_fill(~mask, -torch.inf)
        out = logits.softmax(-1).to(v.dtype) @ v
    else:
        if mask is not None:
            mask = mask.expand(*q.shape[:-1], k.shape[-2]).flatten(0, -4)
        # The fused kernels want exactly four dimensions.
        flat_q, flat_k, flat_v = (x.flatten(0, -4) for x in (q, k, v))
        flat = F.scaled_dot_product_attention(flat_q, flat_k, flat_v, attn_mask=mask)
        out = flat.unflatten(0, q.shape[:-3])
    return rearrange(out, "... g (r p) e -> ... p (g r e)", p=queries)


def attend_to_past(q: Tensor, k: Tensor, v: Tensor, past: tuple[Tensor, Tensor], seen: Tensor, cap: float) -> Tensor:
    """One query frame over C past frames and itself, without joining them in memory.

    Args:
        q: ``(..., H, 1, E)`` at position 0.
        k: ``(..., G, 1, E)`` of the frame itself.
        v: ``(..., G, 1, E)``.
        past: Keys, already rotated by minus their age, and values, each ``(..., G, C, E)``.
        seen: ``(..., C)`` True where the past holds a frame.
        cap: Soft cap of the logits; 0 for none.

    Returns:
        ``(..., 1, H * E)``.
    """
    q = rearrange(q, "... (g r) 1 e -> ... g r e", g=k.shape[-3])
    keys, values = past
    before = _capped(q @ keys.mT, q.shape[-1], cap).masked_fill(~seen[..., None, None, :], -torch.inf)
    logits = torch.cat([before, _capped(q @ k.mT, q.shape[-1], cap)], dim=-1)
    weights = logits.softmax(-1).to(v.dtype)
    out = weights[..., :-1] @ values + weights[..., -1:] * v
    return rearrange(out, "... g r e -> ... 1 (g r e)")


def _capped(products: Tensor, size: int, cap: float) -> Tensor:
    """Scaled and capped logits, in float32 at least."""
    wide = products.to(torch.promote_types(products.dtype, torch.float32))
    return soft_cap(wide * size**-0.5, cap)


@dataclass
class TransformerConfig:
    """Size of a space-time transformer.

    Raises:
        ValueError: If heads, groups or layers do not fit.
    """

    channels: int = 256
    """Channels D of a token."""
    heads: int = 8
    """Query heads H."""
    kv_heads: int = 2
    """Key/value heads G; divides ``heads``. Equal to ``heads`` it is plain multi-head attention."""
    layers: int = 8
    """Layers in all."""
    time_every: int = 4
    """Every n-th layer attends through time, the others within a frame."""
    mlp_ratio: float = 8 / 3
    """Hidden width of the feed-forward networks over D."""
    logit_cap: float = 50.0
    """Soft cap of the attention logits; 0 for none (then PyTorch's fused attention is used)."""
    space_base: float = 100.0
    """RoPE base of rows and columns."""
    time_base: float = 1000.0
    """RoPE base of frames."""

    def __post_init__(self) -> None:
        if self.channels % self.heads or (self.channels // self.heads) % 4:
            raise ValueError(
                f"{self.channels} channels over {self.heads} heads: a head's size must be a multiple of 4"
                " (two axes of channel pairs)"
            )
        if self.kv_heads < 1 or self.heads % self.kv_heads:
            raise ValueError(f"kv_heads is {self.kv_heads}; it must divide heads, which is {self.heads}")
        if not 1 <= self.time_every <= self.layers:
            raise ValueError(
                f"time_every is {self.time_every} with {self.layers} layers; it must lie between 1 and"
                " the number of layers, or no layer sees the past"
            )

    @property
    def head_size(self) -> int:
        """Channels E of a head."""
        return self.channels // self.heads

    @property
    def time_layers(self) -> int:
        """How many layers attend through time, L."""
        return self.layers // self.time_every


class Layer(nn.Module):
    """Attention and SwiGLU, each behind an RMSNorm and beside a residual path."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.cap = config.heads, config.kv_heads, config.logit_cap
        size, width = config.head_size, config.channels
        self.attention_norm = RMSNorm(width)
        self.qkv = nn.Linear(width, (config.heads + 2 * config.kv_heads) * size, bias=False)
        self.q_norm = RMSNorm(size)
        self.k_norm = RMSNorm(size)
        self.attention_out = nn.Linear(width, width, bias=False)
        self.mlp_norm = RMSNorm(width)
        # A multiple of 16 suits the matrix units of GPUs.
        self.mlp = SwiGLU(width, 16 * math.ceil(config.mlp_ratio * width / 16))
        for out in (self.attention_out, self.mlp.out):
            # Residual branches start small, so that depth does not blow up the sum.
            nn.init.normal_(out.weight, std=(2 * config.layers * out.in_features) ** -0.5)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries ``(..., H, P, E)``, keys and values ``(..., G, P, E)`` of ``(..., P, D)``; unrotated."""
        parts = self.qkv(self.attention_norm(x))
        parts = rearrange(parts, "... p (h e) -> ... h p e", h=self.heads + 2 * self.kv_heads)
        q, k, v = parts.split([self.heads, self.kv_heads, self.kv_heads], dim=-3)
        return self.q_norm(q), self.k_norm(k), v

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """Adds what was attended to, then the feed-forward network."""
        x = x + self.attention_out(attended)
        return x + self.mlp(self.mlp_norm(x))

    def forward(self, x: Tensor, angles: Tensor, mask: Tensor | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Attention over the second last dimension of ``x (..., P, D)``.

        Returns:
            The new ``x``, and the unrotated keys and the values ``(..., G, P, E)``.
        """
        q, k, v = self.project(x)
        attended = attend(rotate(q, angles), rotate(k, angles), v, mask, self.cap)
        return self.finish(x, attended), (k, v)


@dataclass
class Past:
    """What the time layers read while one frame is made: the ring, in the form that attention wants.

    Attributes:
        layers: Per time layer, keys rotated by minus their age and values, each ``(B, N, G, C, E)``.
        seen: ``(B, C)`` True where the ring holds a frame.
    """

    layers: list[tuple[Tensor, Tensor]]
    seen: Tensor


def ring_slots(count: Tensor, length: int) -> Tensor:
    """Age of what each slot of a ring holds, for lanes that have seen ``count (B,)`` frames.

    Frame i lies in slot i mod C, so the frame before the next one has age 1 and the oldest has age C.

    Returns:
        ``(B, C)``; an age above ``count`` marks a slot that holds nothing yet.
    """
    slots = torch.arange(length, device=count.device)
    return (count[:, None] - 1 - slots) % length + 1


def ring_write(ring: Tensor, count: Tensor, frame: Tensor) -> Tensor:
    """A copy of ``ring (B, ..., C, E)`` with ``frame (B, ..., 1, E)`` in the slot of the oldest frame."""
    slot = (count % ring.shape[-2]).reshape(-1, *[1] * (ring.ndim - 1))
    index = slot.expand(*ring.shape[:-2], 1, ring.shape[-1])
    return ring.scatter(-2, index, frame.to(ring.dtype))


class SpaceTimeTransformer(nn.Module):
    """Layers over ``(B, T, N, D)`` tokens; whole clips at once, or frame by frame with a cache.

    Args:
        config: Sizes.
        positions: ``(N, 2)`` integer row and column of every token. Tokens without a place lie at (0, 0):
            from there, relative positions tell the others where they are.
        hidden: How many of the last tokens only see and are not seen: nothing attends to them but themselves
            (agent tokens of Dreamer 4).
    """

    positions: Tensor

    def __init__(self, config: TransformerConfig, positions: Tensor, hidden: int = 0) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.channels)
        # Integers, because a change of the model's dtype must not round them.
        self.register_buffer("positions", positions.long(), persistent=False)
        self.hidden = hidden

    def is_time_layer(self, index: int) -> bool:
        """Whether layer ``index`` attends through time: the last of every ``time_every``."""
        return (index + 1) % self.config.time_every == 0

    def space_angles(self) -> Tensor:
        """Rotations ``(N, E/2)``: the first half of the angles turns with rows, the second with columns."""
        angles = rope_angles(self.positions, self.config.head_size // 4, self.config.space_base)
        return rearrange(angles, "n two e -> n (two e)")

    def time_angles(self, positions: Tensor) -> Tensor:
        """Rotations ``(..., E/2)`` of frame positions ``(...)``."""
        return rope_angles(positions, self.config.head_size // 2, self.config.time_base)

    def space_mask(self) -> Tensor | None:
        """``(N, N)`` which token sees which; None if all see all."""
        if not self.hidden:
            return None
        token = torch.arange(len(self.positions), device=self.positions.device)
        shown = token < len(token) - self.hidden
        return shown[None, :] | ~shown[:, None]

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Whole clips.

        Args:
            x: Tokens ``(B, T, N, D)``.
            mask: ``(B, T, T)`` which frame sees which in the time layers; causal, with the diagonal.

        Returns:
            Normalised features ``(B, T, N, D)``, and per time layer the keys and values ``(B, N, G, T, E)``.
        """
        space, within = self.space_angles(), self.space_mask()
        time = self.time_angles(torch.arange(x.shape[1], device=x.device))
        cache = []
        for index, layer in enumerate(self.layers):
            if self.is_time_layer(index):
                x, fresh = layer(rearrange(x, "b t n d -> b n t d"), time, mask[:, None])
                x = rearrange(x, "b n t d -> b t n d")
                cache.append(fresh)
            else:
                x, _ = layer(x, space, within)
        return self.norm(x), cache

    def advance(self, x: Tensor, past: Past) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """One frame after a past.

        Args:
            x: Tokens ``(B, N, D)``.
            past: From :meth:`read`.

        Returns:
            Normalised features ``(B, N, D)``, and per time layer the keys and values ``(B, N, G, 1, E)`` of
            the frame. Nothing is written.
        """
        space, within = self.space_angles(), self.space_mask()
        cache: list[tuple[Tensor, Tensor]] = []
        for index, module in enumerate(self.layers):
            layer = cast(Layer, module)
            if self.is_time_layer(index):
                alone = x[:, :, None]
                q, k, v = layer.project(alone)
                attended = attend_to_past(q, k, v, past.layers[len(cache)], past.seen[:, None], layer.cap)
                x = layer.finish(alone, attended)[:, :, 0]
                cache.append((k, v))
            else:
                x, _ = layer(x, space, within)
        return self.norm(x), cache

    def read(self, keys: Tensor, values: Tensor, count: Tensor) -> Past:
        """Prepares the ring for all passes of one frame.

        Args:
            keys: ``(B, L, N, G, C, E)`` unrotated.
            values: ``(B, L, N, G, C, E)``.
            count: ``(B,)`` frames each lane has seen.
        """
        ages = ring_slots(count, keys.shape[-2])
        turned = rotate(keys, self.time_angles(-ages)[:, None, None, None])
        return Past(list(zip(turned.unbind(1), values.unbind(1), strict=True)), ages <= count[:, None])
