"""The real environments that worlds are learned from: made, labelled and preprocessed in one place."""

from __future__ import annotations

import difflib
import json
from typing import Any

import gymnasium as gym

from neuralsim.envs.preprocessing import Preprocess


def make_real(
    env_id: str,
    env_kwargs: dict[str, Any] | None = None,
    preprocessing: dict[str, Any] | None = None,
    render_mode: str | None = None,
) -> gym.Env:
    """Makes a real environment as a dataset recorded it.

    Args:
        env_id: Any id that Gymnasium knows; ``module:id`` imports the module first. Those of Atari and, where
            ``minerl`` is installed, of MineRL are registered by themselves.
        env_kwargs: Arguments for ``gymnasium.make``.
        preprocessing: Settings of :class:`~neuralsim.envs.preprocessing.Preprocess`; its defaults if None.
        render_mode: As in ``gymnasium.make``.

    Returns:
        An environment whose observations are preprocessed frames, and whose ``info["labels"]`` holds ground truth
        where it is known (ALE's Pong).

    Raises:
        ValueError: For an unknown id, wrong arguments or an environment without pixels.
        ModuleNotFoundError: If the id needs an extra that is not installed.
    """
    settings = dict(preprocessing or {})
    kwargs = dict(env_kwargs or {})
    if settings.get("source") == "render":
        render_mode = "rgb_array"
    if env_id.startswith("ALE/"):
        from neuralsim.envs.atari import register_atari

        register_atari()
    elif env_id.startswith("MineRL") and env_id not in gym.registry:
        from neuralsim.envs.minerl import register_minerl

        register_minerl()
    try:
        env = gym.make(env_id, render_mode=render_mode, disable_env_checker=True, **kwargs)
    except (gym.error.UnregisteredEnv, gym.error.DeprecatedEnv) as error:
        near = difflib.get_close_matches(env_id, list(gym.registry), n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"unknown environment {env_id!r}{hint} ({error})") from None
    except (TypeError, ValueError, gym.error.Error) as error:
        raise ValueError(f"{env_id} does not take the arguments {kwargs}: {error}") from error
    if env_id.startswith("ALE/"):
        from neuralsim.envs.atari import PongLabels, is_pong

        # Labels are in pixels of the whole screen: a cropped picture would need a shift that nobody has checked.
        if is_pong(env) and settings.get("crop") is None:
            env = PongLabels(env, tuple(settings.get("size", (64, 64))))
    return Preprocess(env, **settings)


def real_fps(env: gym.Env) -> float:
    """Observations per second of play.

    Raises:
        ValueError: If the environment does not say.
    """
    if hasattr(env.unwrapped, "ale"):
        from neuralsim.envs.atari import frame_rate

        return frame_rate(env)
    fps = env.metadata.get("render_fps")
    if not fps:
        raise ValueError(f"{env} does not say how fast it runs (metadata['render_fps']); give the rate with --fps")
    return float(fps)


def read_env_kwargs(text: str) -> dict[str, Any]:
    """Arguments of ``gymnasium.make`` from the JSON that a command line holds.

    Raises:
        ValueError: If it is no JSON object.
    """
    try:
        kwargs = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"--env-kwargs {text!r} is no JSON ({error}); "
            """write it like '{"repeat_action_probability": 0.0}'"""
        ) from None
    if not isinstance(kwargs, dict):
        raise ValueError(f"--env-kwargs {text!r} is no JSON object like '{{\"frameskip\": 4}}'")
    return kwargs
