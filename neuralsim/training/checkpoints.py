"""Checkpoints: weights, averaged weights, optimiser state and step in one safetensors file."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from neuralsim.tensor_files import read_tensors, write_tensors


def save_checkpoint(
    path: Path,
    model: nn.Module,
    ema: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    step: int,
    seconds: float,
) -> None:
    """Writes all that a run needs to go on; see :func:`load_checkpoint`."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"ema.{name}": value for name, value in ema.items()}
    names = [name for group in _parameter_names(model, optimizer) for name in group]
    for name, state in zip(names, _ordered_states(optimizer), strict=True):
        tensors |= {f"optimizer.{name}.{key}": torch.as_tensor(value) for key, value in state.items()}
    write_tensors(path, tensors, {"checkpoint": json.dumps({"step": step, "seconds": seconds})})


def load_checkpoint(
    path: Path, model: nn.Module, ema: dict[str, Tensor], optimizer: torch.optim.Optimizer
) -> tuple[int, float]:
    """Restores a run in place.

    Returns:
        The step and the seconds trained so far.

    Raises:
        ValueError: If the file is damaged, or belongs to another model.
    """
    tensors, metadata = read_tensors(path)
    if "checkpoint" not in metadata:
        raise ValueError(f"{path} is no checkpoint of a training run")
    sections: dict[str, dict[str, Tensor]] = {"model": {}, "ema": {}, "optimizer": {}}
    for name, value in tensors.items():
        section, _, rest = name.partition(".")
        sections[section][rest] = value
    try:
        model.load_state_dict(sections["model"])
    except RuntimeError as error:
        raise ValueError(f"{path} belongs to another model: {error}") from None
    for name, value in sections["ema"].items():
        ema[name].copy_(value)
    for group, names in zip(optimizer.param_groups, _parameter_names(model, optimizer), strict=True):
        for parameter, name in zip(group["params"], names, strict=True):
            state = {
                key: sections["optimizer"][f"{name}.{key}"]
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"{name}.{key}" in sections["optimizer"]
            }
            if state:
                optimizer.state[parameter] = {
                    key: value if key == "step" else value.to(parameter.device, memory_format=torch.preserve_format)
                    for key, value in state.items()
                }
    info = json.loads(metadata["checkpoint"])
    return int(info["step"]), float(info["seconds"])


def _parameter_names(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[list[str]]:
    by_id = {id(parameter): name for name, parameter in model.named_parameters()}
    return [[by_id[id(parameter)] for parameter in group["params"]] for group in optimizer.param_groups]


def _ordered_states(optimizer: torch.optim.Optimizer) -> list[dict]:
    return [optimizer.state[p] for group in optimizer.param_groups for p in group["params"]]
