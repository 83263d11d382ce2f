"""What was really seen and done: the context that a world dreams on from."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from neuralsim.world import World, WorldState


class History:
    """Latents of the real frames of several games and the actions between them, as many as the world looks back on.

    Args:
        world: The world.
        lanes: How many games.
        frames: Latents that others want to see, see :meth:`recent`.
    """

    def __init__(self, world: World, lanes: int, frames: int = 1) -> None:
        self.world, self.frames = world, frames
        keep = max(world.dynamics.context_length, frames, 2)
        self.latents: list[deque[Tensor]] = [deque(maxlen=keep) for _ in range(lanes)]
        self.actions: list[deque[np.ndarray]] = [deque(maxlen=keep - 1) for _ in range(lanes)]

    def forget(self, lanes: np.ndarray) -> None:
        """Forgets the games of ``lanes`` ``(n,)`` bool: their next frame is the first of an episode."""
        for lane in np.flatnonzero(lanes):
            self.latents[lane].clear()
            self.actions[lane].clear()

    def saw(self, latents: Tensor) -> None:
        """Adds a latent ``(n, h, w, c)`` to every game."""
        for past, latent in zip(self.latents, latents, strict=True):
            past.append(latent)

    def did(self, actions: np.ndarray) -> None:
        """Adds an encoded action ``(n, A)`` to every game."""
        for past, action in zip(self.actions, actions, strict=True):
            past.append(action)

    def recent(self, lanes: np.ndarray) -> Tensor:
        """``(B, frames, h, w, c)`` latents seen last in some games; before the first frame it is repeated."""
        rows = []
        for lane in lanes:
            seen = list(self.latents[lane])[-self.frames :]
            rows.append(torch.stack([seen[0]] * (self.frames - len(seen)) + seen))
        return torch.stack(rows)

    def state(self, lanes: np.ndarray, seeds: Sequence[int]) -> WorldState:
        """The world's state after what was seen in some games, with seeds for the noise of their dreams."""
        # Contexts of one length are read together; only young episodes have shorter ones.
        lengths = [len(self.latents[lane]) for lane in lanes]
        states, order = [], []
        for length in sorted(set(lengths)):
            rows = [row for row, n in enumerate(lengths) if n == length]
            latents = torch.stack([torch.stack(list(self.latents[lanes[row]])) for row in rows])
            acts = np.zeros((len(rows), length - 1, self.world.actions.size), np.float32)
            for n, row in enumerate(rows):
                if length > 1:
                    acts[n] = np.stack(list(self.actions[lanes[row]]))
            states.append(self.world.start_from_latents(latents, torch.from_numpy(acts), [seeds[row] for row in rows]))
            order += rows
        return WorldState.stack(states).select(np.argsort(order).tolist())
