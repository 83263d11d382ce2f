"""The mouse of a pygame window in a first-person game: a click grabs it, escape frees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from neuralsim.envs.first_person import FirstPersonKeys

CLICK = "click into the picture to look around with the mouse"
FREE = "esc frees the mouse"


class Mouse:
    """Passes movements on to the keys while it is grabbed. Its buttons are pressed like keys, see :meth:`button`.

    pygame's display must be open.

    Args:
        keys: Who turns the view.
        say: Tells the player something.

    Attributes:
        grabbed: Whether the mouse plays; its pointer is hidden then, and stays in the window.
    """

    def __init__(self, keys: FirstPersonKeys, say: Callable[[str], None]) -> None:
        import pygame

        self.pygame, self.keys, self.say = pygame, keys, say
        self.grabbed = False
        say(CLICK)

    def takes(self, event: Any) -> bool:
        """Handles what is the mouse's own business; returns whether there is nothing else to do about an event."""
        pygame = self.pygame
        if event.type == pygame.MOUSEBUTTONDOWN and not self.grabbed:
            if event.button == pygame.BUTTON_LEFT:
                self._grab(True)
                self.say(FREE)
            return True
        if event.type == pygame.MOUSEMOTION:
            if self.grabbed:
                self.keys.look(*event.rel)
            return True
        if event.type == pygame.KEYDOWN and event.key == pygame.K_ESCAPE and self.grabbed:
            self._grab(False)
            self.say(CLICK)
            return True
        if event.type == pygame.WINDOWFOCUSLOST and self.grabbed:
            self._grab(False)
        return False

    @staticmethod
    def button(event: Any) -> int:
        """The key code (such as :data:`~neuralsim.envs.keyboard.MOUSE_LEFT`) of an event of a mouse button."""
        return -event.button

    def _grab(self, grabbed: bool) -> None:
        self.grabbed = grabbed
        self.keys.forget()
        # Hidden and held, the mouse tells how it moves without end, also where the window's edge would stop it.
        self.pygame.mouse.set_visible(not grabbed)
        self.pygame.event.set_grab(grabbed)
