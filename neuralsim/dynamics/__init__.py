"""Dynamics: the next latent from the past and an action. A world names its dynamics by type in its config."""

from __future__ import annotations

import importlib
from typing import Any

from neuralsim.dynamics.base import ClipBatch, Dynamics, State

__all__ = ["DYNAMICS", "ClipBatch", "Dynamics", "State", "build_dynamics"]

DYNAMICS = {
    "convolutional": (
        "neuralsim.dynamics.convolutional",
        "ConvolutionalDynamics",
        "ConvolutionalDynamicsConfig",
    ),
    "transformer": ("neuralsim.dynamics.transformer", "TransformerDynamics", "TransformerDynamicsConfig"),
}


def build_dynamics(type_name: str, config: dict[str, Any]) -> Dynamics:
    """Builds an untrained dynamics model from its type and the fields of its config.

    Raises:
        ValueError: For an unknown type or an unknown field.
    """
    if type_name not in DYNAMICS:
        raise ValueError(f"unknown dynamics type {type_name!r}; there are {', '.join(DYNAMICS)}")
    module_name, model, config_type = DYNAMICS[type_name]
    module = importlib.import_module(module_name)
    try:
        parsed = getattr(module, config_type)(**config)
    except TypeError as error:
        raise ValueError(f"the config of the {type_name} dynamics does not fit this version: {error}") from None
    return getattr(module, model)(parsed)
