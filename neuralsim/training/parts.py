"""Trained parts as single files: weights with their type and config in the file's metadata."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from gymnasium.spaces import Dict, Space
from torch import Tensor, nn

from neuralsim.actions import ActionCodec, space_from_json
from neuralsim.data.latents import fingerprint
from neuralsim.dynamics import build_dynamics
from neuralsim.heads import Heads, HeadsConfig
from neuralsim.registration import BUNDLED_WORLDS
from neuralsim.tensor_files import read_tensors, write_tensors
from neuralsim.tokenizers import Tokenizer, build_tokenizer
from neuralsim.training.other_actions import refit_actions
from neuralsim.training.world_model import WorldModel
from neuralsim.world import World
from neuralsim.world_files import WEIGHTS


def save_part(path: Path, model: nn.Module, kind: str, config: dict[str, Any]) -> None:
    """Writes a part: ``kind`` ("tokenizer" or "world model") and what it takes to build it again."""
    write_tensors(path, model.state_dict(), {"kind": kind, "config": json.dumps(config)})


def part_config(model: Any) -> dict[str, Any]:
    """Type name and config fields of a tokenizer or dynamics model."""
    return {"type": model.type_name, "config": dataclasses.asdict(model.config)}


DYNAMICS = "dynamics."
"""Names of the dynamics' weights begin so."""
FORESIGHT = "foresight."
"""Names of the weights that serve training alone begin so."""

HOW_TRAINED = ("batch_size", "clips", "foresight", "heads_only", "heads_on_dreams", "loop", "init_from")
"""What a world tells of the training of its dynamics, run by run."""


def read_spent(run: Path) -> dict[str, Any]:
    """``steps`` and ``seconds`` of a run so far, from the log in its folder; nothing if there is no log."""
    log = (run if run.is_dir() else run.parent) / "metrics.jsonl"
    lines = log.read_text().splitlines() if log.exists() else []
    rows = [json.loads(line) for line in lines if line.endswith("}")]
    return {"steps": rows[-1]["step"], "seconds": rows[-1]["seconds"]} if rows else {}


def load_tokenizer(path: Path) -> Tokenizer:
    """Reads ``tokenizer.safetensors``, the one in a run's folder, or that of a world; frozen and in eval mode.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If the file is damaged or no tokenizer.
    """
    if (world := _world(path)) is not None:
        return world.tokenizer
    tensors, config = _read(path, "tokenizer.safetensors", "tokenizer")
    model = build_tokenizer(config["type"], config["config"])
    model.load_state_dict(tensors)
    return model.eval().requires_grad_(False)


def tokenizer_fingerprint(world: World) -> str:
    """The name of a world's tokenizer weights as they lie on disk: a world on a GPU may have been rounded."""
    return fingerprint(world.tokenizer if world.source is None else load_tokenizer(world.source))


def load_initial_weights(model: WorldModel, path: Path, codec: ActionCodec) -> dict[str, Any]:
    """Copies weights into ``model`` from a dynamics run, its ``dynamics.safetensors``, or a world.

    Past actions that their model did not see begin with no weight, blocks that it did not have change nothing, and of
    other actions those parts are known that both have (:mod:`neuralsim.training.other_actions`).

    Args:
        model: As large as theirs.
        path: Where theirs is.
        codec: Of the actions that ``model`` sees.

    Returns:
        Where they come from and how they were trained, for the description of the run that goes on from them.

    Raises:
        ValueError: If the sizes differ, or the actions have nothing in common.
    """
    try:
        if (world := _world(path)) is not None:
            dynamics, heads = (
                _with_actions(part.state_dict(), world.action_space, codec, path)
                for part in (world.dynamics, world.heads)
            )
            model.dynamics.load_state_dict(model.dynamics.fitted(dynamics))
            model.heads.load_state_dict(heads)
            return {"path": str(path), **world.config.trained_on.get("dynamics", {})}
        tensors, description = _read(path, "dynamics.safetensors", "world model")
        if known := description.get("action_space"):
            tensors = _with_actions(tensors, space_from_json(known), codec, path)
        else:
            _check_actions(model.dynamics.action_size, description["dynamics"]["config"]["action_size"], path)
        theirs = {name.removeprefix(DYNAMICS): value for name, value in tensors.items() if name.startswith(DYNAMICS)}
        tensors |= {DYNAMICS + name: value for name, value in model.dynamics.fitted(theirs).items()}
        own = model.state_dict()
        foresight = {name: value for name, value in own.items() if name.startswith(FORESIGHT)}
        # A readout of the past that fits is taken along; one of other things or looks begins anew.
        fits = {name: value.shape for name, value in foresight.items()} == {
            name: value.shape for name, value in tensors.items() if name.startswith(FORESIGHT)
        }
        kept = {name: value for name, value in tensors.items() if fits or not name.startswith(FORESIGHT)}
        model.load_state_dict(kept if fits else {**kept, **foresight})
        told = {key: description.get(key) for key in ("dynamics", *HOW_TRAINED)}
        return {"path": str(path), **told, **read_spent(path)}
    except RuntimeError as error:
        raise ValueError(f"--init-from {path} has other sizes than this run: {error}") from None


def _with_actions(weights: dict[str, Tensor], theirs: Space, own: ActionCodec, path: Path) -> dict[str, Tensor]:
    """Weights that see the actions of ``own``."""
    if theirs == own.space:
        return weights
    if not isinstance(theirs, Dict) or not isinstance(own.space, Dict):
        _check_actions(own.size, ActionCodec(theirs).size, path)
        return weights
    try:
        return refit_actions(weights, ActionCodec(theirs), own)
    except ValueError as error:
        raise ValueError(f"--init-from {path}: {error}") from None


def _check_actions(own: int, theirs: int, path: Path) -> None:
    if theirs != own:
        raise ValueError(f"--init-from {path} knows actions of {theirs} numbers, these recordings have {own}")


def initial_weights_of(out: Path, path: Path) -> dict[str, Any] | None:
    """What a run in progress remembers of the weights it began from, if these were the ones at ``path``."""
    config = out / "config.json"
    if not (config.exists() and (out / "checkpoint.safetensors").exists()):
        return None
    initial = json.loads(config.read_text()).get("init_from") or {}
    return initial if initial.get("path") == str(path) else None


def _world(path: Path) -> World | None:
    """The world in a folder, or the bundled one of that name; None if it is no world."""
    bundled = str(path) in (*BUNDLED_WORLDS, *BUNDLED_WORLDS.values()) and not path.exists()
    if bundled or (path / WEIGHTS).exists():
        return World.load(str(path), device="cpu", dtype="float32")
    return None


def load_world_model(path: Path) -> tuple[WorldModel, dict[str, Any]]:
    """Reads ``dynamics.safetensors``, or the one in a run's folder, without its foresight; frozen, in eval mode."""
    tensors, config = _read(path, "dynamics.safetensors", "world model")
    dynamics = build_dynamics(config["dynamics"]["type"], config["dynamics"]["config"])
    model = WorldModel(dynamics, Heads(HeadsConfig(**config["heads"])))
    model.load_state_dict({name: value for name, value in tensors.items() if not name.startswith(FORESIGHT)})
    return model.eval().requires_grad_(False), config


def load_heads(path: Path) -> tuple[Heads, str, dict[str, Any]]:
    """Reward and continue heads of a dynamics run, or of a world (a folder, or pong for the bundled one).

    Returns:
        The heads, the fingerprint of the tokenizer whose latents they judge, and how they were trained.
    """
    if (world := _world(path)) is not None:
        trained_on = world.config.trained_on
        return world.heads, fingerprint(world.tokenizer), trained_on.get("heads") or trained_on.get("dynamics", {})
    model, told = load_world_model(path)
    return model.heads, told["tokenizer"], {key: told.get(key) for key in HOW_TRAINED} | read_spent(path)


def _read(path: Path, name: str, kind: str) -> tuple[dict, dict]:
    path = path / name if path.is_dir() else path
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; train the part first (neuralsim train --help)")
    tensors, metadata = read_tensors(path)
    if metadata.get("kind") != kind:
        raise ValueError(f"{path} holds no {kind}, but {metadata.get('kind', 'an unknown kind of file')}")
    return tensors, json.loads(metadata["config"])
