"""What the folder of a training run tells: its figures, what was found on the way, and its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from neuralsim.tensor_files import read_tensors
from neuralsim.training.diagnostic_rules import Finding
from neuralsim.training.diagnostics import Diagnostics, active_findings, read_log
from neuralsim.training.weight_checks import Check, check_constant, check_finite

CHECKPOINT, PARTS = "checkpoint.safetensors", ("tokenizer.safetensors", "dynamics.safetensors")
RISE = 1.5
"""A loss that is so many times what it was before rises. Less may be the schedule: new terms come into the loss."""
FEWEST_ROWS = 20
"""Lines of the log from which on its course is judged."""
LEAST_SCALE = 1.001e-3
"""Latent channels that vary less are given the scale 0.001 by the tokenizer: they hold nothing."""


def check_run(folder: Path) -> list[Check]:
    """All checks of a run that there is something for."""
    checks = [check_config(folder / "config.json")]
    rows = read_log(folder / "metrics.jsonl")
    figures = [row for row in rows if row.get("kind") != "finding"]
    if figures:
        checks += [check_figures(folder / "metrics.jsonl", figures), check_course(figures)]
    else:
        young = Finding("no_figures", "note", "the log holds no figures yet", "wait for --loop.log-every steps")
        checks.append(Check("figures", "", (young,)))
    checks += _files(folder)
    return [*checks, *check_divergence(folder, rows)]


def check_config(path: Path) -> Check:
    """Whether it can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Check("config", f"a {content['kind']} run")
    except (OSError, ValueError, KeyError, TypeError) as error:
        damaged = Finding(
            "config_damaged", "error", f"{path} cannot be read: {error!r}", "start the run in a new --out"
        )
        return Check("config", "", (damaged,))


def check_figures(log: Path, figures: list[dict[str, Any]]) -> Check:
    """The latest figures by the rules that watch a run, and what was found on the way and is not over."""
    latest: dict[str, float] = {}
    for kind in dict.fromkeys(row["kind"] for row in figures):
        row = [row for row in figures if row["kind"] == kind][-1]
        latest |= {name: value for name, value in row.items() if name not in ("step", "kind", "seconds")}
    begun, _ = Diagnostics().look(latest, figures[-1]["step"])
    findings = active_findings(log) | {finding.name: finding for finding in begun}
    seen = f"{len(latest)} at step {figures[-1]['step']:,}, nothing wrong with them"
    return Check("figures", seen, tuple(findings.values()))


def check_course(figures: list[dict[str, Any]]) -> Check:
    """Whether the loss rises: the last tenth of the log against the tenth before it."""
    losses = np.array([row["loss"] for row in figures if "loss" in row])
    width = max(len(losses) // 10, 1)
    if len(losses) < FEWEST_ROWS:
        return Check("course", "too short to tell")
    before, now = float(losses[-2 * width : -width].mean()), float(losses[-width:].mean())
    findings = []
    if now > RISE * before:
        findings.append(
            Finding(
                "loss_rising",
                "warning",
                f"the loss has risen from {before:.3g} to {now:.3g} over the last {2 * width} lines of the log",
                "look at the pictures: if they get worse too, go back to an earlier checkpoint and lower "
                "--loop.learning-rate",
            )
        )
    return Check("course", f"the loss went from {before:.3g} to {now:.3g} of late", tuple(findings))


def check_divergence(folder: Path, rows: list[dict[str, Any]]) -> list[Check]:
    """Whether the run was stopped by a loss that was not finite and has not got past it since."""
    path = folder / "diverged_batch.safetensors"
    if not path.exists():
        return []
    stopped = int(read_tensors(path)[1].get("step", 0))
    if max((row["step"] for row in rows if row.get("kind") != "finding"), default=0) > stopped:
        return [Check("divergence", f"stopped at step {stopped:,} once, and got past it")]
    found = Finding(
        "diverged",
        "error",
        f"stopped at step {stopped:,} by a loss or gradient that was not finite",
        f"look at the batch in {path.name}; resume with a smaller --loop.learning-rate or --loop.dtype float32",
    )
    return [Check("divergence", "", (found,))]


def check_scale(name: str, scale: Tensor) -> Check:
    """Whether every latent channel of a tokenizer varied on its training frames; ``scale`` is ``(c,)``."""
    dead = (scale <= LEAST_SCALE).nonzero()[:, 0].tolist()
    findings = []
    if dead:
        findings.append(
            Finding(
                "latents_dead",
                "warning",
                f"latent channels {', '.join(map(str, dead))} of {len(scale)} are the same in all training frames",
                "train the tokenizer longer, or with fewer --model.latent-channels",
            )
        )
    return Check(name, f"{len(scale)} latent channels, the quietest moves by {float(scale.min()):.2g}", tuple(findings))


def _files(folder: Path) -> list[Check]:
    checks = []
    for name in (CHECKPOINT, *PARTS):
        if not (folder / name).exists():
            continue
        try:
            tensors, _ = read_tensors(folder / name)
        except ValueError as error:
            damaged = Finding("file_damaged", "error", str(error), "delete it, and resume or start the run again")
            checks.append(Check(name, "", (damaged,)))
            continue
        checks.append(check_finite(name, tensors))
        if name in PARTS:
            checks.append(check_constant(f"layers of {name}", tensors))
        if "latent_scale" in tensors:
            checks.append(check_scale(f"latents of {name}", tensors["latent_scale"]))
    return checks
