"""A human player: the frame in a window, actions from the keys held down, and from the mouse in first-person games."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from neuralsim.agents.policies import PlayerQuit, Policy
from neuralsim.envs.first_person import FirstPersonKeys, keys_of
from neuralsim.envs.mouse import Mouse
from neuralsim.envs.play import require_window
from neuralsim.envs.real import real_fps


class KeyboardPolicy(Policy):
    """Shows the frames and plays what is pressed, in real time. Escape, or closing the window, ends the recording.

    In first-person games a click grabs the mouse, and escape frees it first.

    Args:
        env: The environment; it must say which keys play it.
        height: Least height of the window in pixels.

    Raises:
        ValueError: If it does not say so.
        ModuleNotFoundError: Without the extra ``play``.
        OSError: Without a display.
    """

    name = "keyboard"

    def __init__(self, env: gym.Env, height: int = 512) -> None:
        self.pygame = require_window()
        self.keys = keys_of(env)
        self.fps = real_fps(env)
        self.height = height
        self.held: list[int] = []  # in the order in which they were pressed
        self.mouse: Mouse | None = None
        self.window: Any = None
        self.clock: Any = None

    def reset(self, seed: int | None = None) -> None:
        """Keeps the keys that are held: a game ends while somebody plays."""

    def act(self, frame: np.ndarray, info: dict[str, Any]) -> Any:
        """Shows the frame, waits for its time and returns the action of the keys held.

        Raises:
            PlayerQuit: If the player leaves.
        """
        pygame = self.pygame
        scale = max(1, -(-self.height // frame.shape[0]))
        size = (frame.shape[1] * scale, frame.shape[0] * scale)
        if self.window is None:
            pygame.init()
            self.window = pygame.display.set_mode(size)
            pygame.display.set_caption(
                "recording   " + "   ".join(f"{'/'.join(n)}: {what}" for n, what in self.keys.legend)
            )
            self.clock = pygame.time.Clock()
            if isinstance(self.keys, FirstPersonKeys):
                self.mouse = Mouse(self.keys, lambda text: print(text, flush=True))
        picture = pygame.surfarray.make_surface(frame.swapaxes(0, 1))
        pygame.transform.scale(picture, size, self.window)
        pygame.display.flip()
        self.clock.tick(self.fps)
        for event in pygame.event.get():
            if self.mouse is not None and self.mouse.takes(event):
                continue
            if event.type == pygame.QUIT or (event.type == pygame.KEYDOWN and event.key == pygame.K_ESCAPE):
                raise PlayerQuit
            if event.type == pygame.KEYDOWN and event.key not in self.held:
                self.held.append(event.key)
            elif event.type == pygame.KEYUP and event.key in self.held:
                self.held.remove(event.key)
            elif event.type == pygame.MOUSEBUTTONDOWN:
                self.held.append(Mouse.button(event))
            elif event.type == pygame.MOUSEBUTTONUP and Mouse.button(event) in self.held:
                self.held.remove(Mouse.button(event))
        return self.keys.action(self.held)

    def close(self) -> None:
        """Closes the window."""
        if self.window is not None:
            self.pygame.quit()
            self.window = None
