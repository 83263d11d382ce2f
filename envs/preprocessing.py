"""From an environment's screen to the frames that models see: one wrapper for recording and for live play."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from PIL import Image

RESAMPLE = {
    "box": Image.Resampling.BOX,
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
"""Names of the resampling filters. "box" takes the mean of the source pixels whose centres lie in the new pixel."""


HOW_TO_SHOW_FRAMES = (
    "a dream made with obs_key=None shows frames, and so does a real environment wrapped in "
    "neuralsim.envs.preprocessing.Preprocess"
)
"""Advice for errors about observations that are no frames ``(H, W, 3)`` uint8."""


def resize(frame: np.ndarray, size: tuple[int, int], resample: str = "box") -> np.ndarray:
    """Resizes one frame.

    Args:
        frame: ``(H, W, 3)``, or ``(H, W)`` or ``(H, W, 1)`` grey, uint8.
        size: Height and width of the result.
        resample: A key of :data:`RESAMPLE`.

    Returns:
        ``(*size, 3)`` uint8.

    Raises:
        ValueError: If the frame is no such picture.
    """
    if frame.dtype != np.uint8:
        raise ValueError(f"a frame of type {frame.dtype}; frames are uint8, 0 to 255")
    if frame.ndim == 3 and frame.shape[2] == 1:
        frame = frame[..., 0]
    if frame.ndim not in (2, 3) or (frame.ndim == 3 and frame.shape[2] != 3):
        raise ValueError(f"a frame of shape {frame.shape}; it must be (H, W, 3), (H, W, 1) or (H, W)")
    if frame.ndim == 2:
        frame = np.repeat(frame[..., None], 3, axis=2)
    if frame.shape[:2] == tuple(size):
        return np.ascontiguousarray(frame)
    return np.array(Image.fromarray(frame).resize((size[1], size[0]), RESAMPLE[resample]))


class Preprocess(gym.ObservationWrapper, RecordConstructorArgs):
    """Turns an environment's observations into the frames ``(H, W, 3)`` uint8 that a dataset holds.

    A dataset and a world carry :attr:`settings`, so that ``Preprocess(env, **settings)`` shows an agent the live
    environment exactly as it was recorded.

    Args:
        env: An environment with pixel observations (Box uint8, colour or grey), with pixels under a key of Dict
            observations, or with ``render_mode="rgb_array"``.
        size: Height and width of the frames.
        resample: Filter, a key of :data:`RESAMPLE`.
        crop: ``(top, left, height, width)`` of the screen to keep; the whole screen by default.
        source: ``"observation"``, or ``"render"`` to take ``env.render()`` instead of the observation.
        key: Key of the pixels in Dict observations; found by itself if there is just one, or one called "pov",
            "pixels", "image" or "rgb".

    Raises:
        ValueError: If no pixels are found, or a setting makes no sense.
    """

    def __init__(
        self,
        env: gym.Env,
        size: tuple[int, int] = (64, 64),
        resample: str = "box",
        crop: tuple[int, int, int, int] | None = None,
        source: str = "observation",
        key: str | None = None,
    ) -> None:
        RecordConstructorArgs.__init__(self, size=size, resample=resample, crop=crop, source=source, key=key)
        gym.ObservationWrapper.__init__(self, env)
        self.size = (int(size[0]), int(size[1]))
        if min(self.size) < 1:
            raise ValueError(f"size {size} must be a height and a width of at least 1")
        if resample not in RESAMPLE:
            raise ValueError(f"unknown resample {resample!r}; choose one of {', '.join(RESAMPLE)}")
        if source not in ("observation", "render"):
            raise ValueError(f'unknown source {source!r}; choose "observation" or "render"')
        if source == "render" and env.render_mode != "rgb_array":
            raise ValueError(f'source "render" needs render_mode="rgb_array", and {env} has {env.render_mode!r}')
        self.resample, self.source = resample, source
        self.key = find_pixels(env.observation_space, key) if source == "observation" else None
        self.crop = None if crop is None else tuple(int(n) for n in crop)
        if self.crop is not None and (len(self.crop) != 4 or min(self.crop[:2]) < 0 or min(self.crop[2:]) < 1):
            raise ValueError(f"crop {crop} must be (top, left, height, width)")
        self.observation_space = spaces.Box(0, 255, (*self.size, 3), np.uint8)

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments of this wrapper as JSON."""
        return {
            "size": list(self.size),
            "resample": self.resample,
            "crop": None if self.crop is None else list(self.crop),
            "source": self.source,
            "key": self.key,
        }

    def observation(self, observation: Any) -> np.ndarray:
        """The frame of an observation."""
        if self.source == "render":
            observation = self.env.render()
        elif self.key is not None:
            observation = observation[self.key]
        frame = np.asarray(observation)
        if self.crop is not None:
            top, left, height, width = self.crop
            if top + height > frame.shape[0] or left + width > frame.shape[1]:
                raise ValueError(f"crop {self.crop} leaves the screen of {frame.shape[0]}x{frame.shape[1]} pixels")
            frame = frame[top : top + height, left : left + width]
        return resize(frame, self.size, self.resample)


def as_observation(frame: np.ndarray, key: str | None) -> Any:
    """A frame, or a batch of frames, as environments with Dict observations show it under a key; None: as it is."""
    return frame if key is None else {key: frame}


def find_pixels(space: spaces.Space, key: str | None = None) -> str | None:
    """Key of the pixels in an observation space; None if the observations are the pixels.

    Raises:
        ValueError: If there are none; the message says what to do.
    """
    if isinstance(space, spaces.Dict):
        pixels = [name for name, part in space.spaces.items() if _is_pixels(part)]
        if key is not None:
            if key not in pixels:
                raise ValueError(f"the observations have no pixels under {key!r}; there are {pixels or 'none'}")
            return key
        usual = [name for name in ("pov", "pixels", "image", "rgb") if name in pixels]
        if usual or len(pixels) == 1:
            return (usual or pixels)[0]
        if pixels:
            raise ValueError(f"the observations have pixels under {pixels}; choose one by key")
    elif _is_pixels(space):
        return None
    raise ValueError(
        f"the observations are no pixels but {space}; where the environment can draw itself, take its picture "
        'instead: source="render" (neuralsim record --source render)'
    )


def _is_pixels(space: spaces.Space) -> bool:
    if not isinstance(space, spaces.Box) or space.dtype != np.uint8:
        return False
    return len(space.shape) == 2 or (len(space.shape) == 3 and space.shape[2] in (1, 3))
