"""The training loop: one for every model that answers ``loss, metrics = model(batch)``.

Notable here:
- batch and noise of a step depend on (seed, step) alone, so a run that was killed and resumed goes on exactly as
  the uninterrupted one would have;
- checkpoints are single safetensors files (weights, EMA, optimiser, step), replaced atomically;
- a loss or gradient that is not finite stops the run and leaves the offending batch beside the checkpoint;
- what looks wrong (:mod:`neuralsim.training.diagnostic_rules`) is told once when it begins, with advice, on the
  console, in TensorBoard and in the log.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text
from torch import Tensor, nn

from neuralsim.data.episodes import write_atomically
from neuralsim.devices import autocast, choose_device
from neuralsim.tensor_files import write_tensors
from neuralsim.training.checkpoints import load_checkpoint, save_checkpoint
from neuralsim.training.diagnostic_rules import Finding
from neuralsim.training.diagnostics import Diagnostics, not_finite
from neuralsim.training.gauges import Gauges
from neuralsim.training.muon import Muon, hidden_weights

FREE_TO_CHANGE = ("steps", "device", "threads", "compile", "log_every", "checkpoint_every", "evaluate_every")
"""Options of the loop that a resumed run may have otherwise than the run before."""


class TrainingDivergedError(ValueError):
    """A loss or a gradient was not finite; the message says where the batch was saved."""


@dataclass
class LoopConfig:
    """How long and how fast to train. A step is one optimiser step."""

    steps: int = 10_000
    """Optimiser steps in all. A finished run can be continued by asking for more."""
    learning_rate: float = 1e-3
    """Peak learning rate."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """adamw, or muon: orthogonalised momentum for the weights of hidden layers, AdamW for all others, at the same
    learning rate. Learns Pong's dynamics in fewer steps."""
    warmup_steps: int = 200
    """Steps over which the learning rate rises from 0."""
    decay_fraction: float = 0.6
    """Last share of the run, over which the learning rate falls along a cosine."""
    final_learning_rate: float = 0.02
    """Learning rate at the end, as a share of the peak."""
    weight_decay: float = 0.02
    """Decoupled weight decay of matrices and kernels; vectors have none."""
    beta2: float = 0.98
    """Second AdamW momentum; the first is 0.9."""
    gradient_clip: float = 1.0
    """Largest gradient norm of a part (dynamics, heads); longer gradients are scaled down to it."""
    ema: float = 0.998
    """Decay of the averaged weights, which are the ones that are evaluated and used."""
    seed: int = 0
    """Seed of initial weights, batches and noise."""
    device: str = "auto"
    """cpu, cuda, mps, or auto for the best there is."""
    dtype: str = "auto"
    """float32, bfloat16 (autocast), or auto: bfloat16 where the hardware has it, float32 elsewhere."""
    threads: int = 0
    """CPU threads; 0 leaves PyTorch's choice."""
    compile: bool = False
    """Compile the model (needs a C++ compiler; a minute at the start, faster after)."""
    log_every: int = 50
    """Steps between lines of the log."""
    checkpoint_every: int = 500
    """Steps between checkpoints."""
    evaluate_every: int = 1000
    """Steps between evaluations on held-out data, with pictures."""


@dataclass
class TrainingRun:
    """A model on its way.

    Args:
        model: Answers ``loss, metrics = model(batch)``. If they exist, ``set_progress(share)`` is called,
            ``compile_parts()`` replaces ``compile()``, what ``separate_parts()`` names (together all that learns)
            is clipped apart, what ``frozen_parts()`` names must get no gradients, the entries of the state that
            ``not_averaged()`` names are taken over as they are, and ``describe(figures)`` says what stands beside the
            progress bar.
        draw_batch: Step -> batch (a tensor or a dataclass of tensors with ``to``); must depend on the step only.
        evaluate: (model with EMA weights, step, folder) -> figures by name; may write pictures to the folder.
        out: Folder of the run: ``checkpoint.safetensors``, ``config.json``, ``metrics.jsonl``, TensorBoard's events.
        config: The loop's options.
        description: Saved as ``config.json``; a resumed run must have the same, but for the number of steps.
        defaults: Of entries of the description, as nested dicts: what a run had that was begun before there was such an
            option.
    """

    model: nn.Module
    draw_batch: Callable[[int], Any]
    out: Path
    config: LoopConfig
    description: dict[str, Any]
    defaults: dict[str, Any] = field(default_factory=dict, kw_only=True)
    evaluate: Callable[[nn.Module, int, Path], dict[str, float]] | None = None
    step: int = 0
    ema: dict[str, Tensor] = field(default_factory=dict)

    def run(self) -> None:
        """Trains until ``config.steps``; resumes from the folder's checkpoint if there is one.

        Raises:
            TrainingDivergedError: When the loss or a gradient is not finite.
            ValueError: If the folder holds a run of another configuration, or the clips do not fit the dynamics.
        """
        config = self.config
        if config.threads:
            torch.set_num_threads(config.threads)
        device = choose_device(config.device)
        self.check_description()
        model = self.model.to(device)
        if device.type == "cpu":
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = make_optimizer(model, config)
        self.ema = {name: value.detach().clone() for name, value in model.state_dict().items()}
        checkpoint = self.out / "checkpoint.safetensors"
        seconds_before = 0.0
        if checkpoint.exists():
            self.step, seconds_before = load_checkpoint(checkpoint, model, self.ema, optimizer)
            print(f"resuming {self.out} at step {self.step}")
        _truncate_log(self.out / "metrics.jsonl", self.step)
        if config.compile:
            # A model that unrolls in Python names the parts that are worth compiling.
            (getattr(model, "compile_parts", None) or model.compile)()
        from torch.utils.tensorboard import SummaryWriter

        board = SummaryWriter(str(self.out / "tensorboard"), purge_step=self.step)
        started = time.monotonic()
        window: list[dict[str, Tensor]] = []
        gauges = Gauges(model, config.gradient_clip, device)
        diagnostics = Diagnostics.resumed(self.out / "metrics.jsonl")

        def spent() -> float:
            return seconds_before + time.monotonic() - started

        def save() -> None:
            save_checkpoint(checkpoint, model, self.ema, optimizer, self.step, spent())

        def watch(figures: dict[str, float]) -> None:
            self._tell(*diagnostics.look(figures, self.step), spent(), board, progress)
            board.add_scalar("findings/active", len(diagnostics.active), self.step)

        with _progress() as progress, contextlib.closing(board), _interrupts() as interrupted:
            task = progress.add_task(self.out.name, total=config.steps, completed=self.step, note="")
            model.train()
            while self.step < config.steps:
                try:
                    window.append(self._train_step(model, optimizer, device, gauges))
                except TrainingDivergedError as error:
                    # Nobody looks at figures after this: the log gets the finding, the console the error itself.
                    found = dataclasses.replace(not_finite("loss", math.nan), message=str(error))
                    self._write("finding", spent(), dataclasses.asdict(found))
                    raise
                if self.step % config.log_every == 0 or self.step == config.steps:
                    figures, measured = _means(window), gauges.read()
                    window.clear()
                    self._log("train", figures, spent(), board, progress, measured)
                    watch(figures | measured)
                    describe = getattr(model, "describe", lambda told: f"loss {told['loss']:.4f}")
                    progress.update(task, completed=self.step, note=describe(figures))
                done = self.step == config.steps
                if done or self.step % config.checkpoint_every == 0:
                    save()
                if self.evaluate and (done or self.step % config.evaluate_every == 0):
                    figures = self._evaluate(model)
                    self._log("held-out", figures, spent(), board, progress)
                    watch(figures)
                if interrupted:
                    save()
                    progress.console.print(f"stopped at step {self.step}; the same command resumes {self.out}")
                    raise KeyboardInterrupt

    def _train_step(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device, gauges: Gauges
    ) -> dict[str, Tensor]:
        config, begun = self.config, time.perf_counter()
        learning_rate = learning_rate_at(self.step, config)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        if callable(set_progress := getattr(model, "set_progress", None)):
            set_progress(self.step / config.steps)
        drawn = self.draw_batch(self.step)
        batch = drawn.to(device)
        waited = time.perf_counter() - begun
        gauges.saw_batch(drawn)
        # The noise of a step is a function of (seed, step), as the batch is.
        torch.manual_seed((config.seed * 1_000_003 + self.step) % 2**63)
        with autocast(device, config.dtype):
            loss, metrics = model(batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = clip_gradients(model, config.gradient_clip)
        if not (torch.isfinite(loss) and torch.isfinite(norm)):
            self._diverged(batch, loss, norm)
        optimizer.step()
        self.step += 1
        self._update_ema(model)
        gauges.saw_step(norm.detach(), waited, time.perf_counter() - begun)
        return {
            **metrics,
            "loss": loss.detach(),
            "gradient_norm": norm.detach(),
            "learning_rate": torch.tensor(learning_rate),
        }

    def _update_ema(self, model: nn.Module) -> None:
        # A short memory at first, so that the average does not hold on to the initial weights.
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        floats, targets = [], []
        left_out: list[str] = getattr(model, "not_averaged", list)()
        for name, value in model.state_dict().items():
            if value.is_floating_point() and name not in left_out:
                floats.append(self.ema[name])
                targets.append(value.detach())
            else:
                self.ema[name].copy_(value)
        torch._foreach_lerp_(floats, targets, 1 - decay)

    def _evaluate(self, model: nn.Module) -> dict[str, float]:
        assert self.evaluate is not None
        # Evaluations come in other batch sizes, each of which would be compiled anew: they run as written.
        with averaged_weights(model, self.ema), torch.no_grad(), torch.compiler.set_stance("force_eager"):
            return self.evaluate(model, self.step, self.out)

    def _diverged(self, batch: Any, loss: Tensor, norm: Tensor) -> None:
        tensors = vars(batch) if dataclasses.is_dataclass(batch) else {"batch": batch}
        path = self.out / "diverged_batch.safetensors"
        write_tensors(path, {k: v for k, v in tensors.items() if isinstance(v, Tensor)}, {"step": str(self.step)})
        raise TrainingDivergedError(
            f"loss {float(loss.detach()):g}, gradient norm {float(norm):g} at step {self.step}: the batch is saved "
            f"as {path}; the checkpoint before it is intact. Try a smaller learning_rate or dtype float32"
        )

    def check_description(self) -> None:
        """Writes ``config.json``; whoever keeps more in the folder than the run does calls it before.

        Raises:
            ValueError: If the folder holds a run of another configuration.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        path = self.out / "config.json"
        description = json.loads(json.dumps(self.description))
        if path.exists() and (self.out / "checkpoint.safetensors").exists():
            # What an older version did not know had what is the default now.
            defaults = json.loads(json.dumps({"loop": dataclasses.asdict(LoopConfig()), **self.defaults}))
            old = filled(json.loads(path.read_text()), defaults)
            changed = [k for k in description if k != "loop" and old.get(k) != description[k]]
            loop, old_loop = description.get("loop", {}), old["loop"]
            changed += [f"loop.{k}" for k in loop if k not in FREE_TO_CHANGE and old_loop.get(k) != loop[k]]
            if changed:
                raise ValueError(
                    f"{self.out} holds a run with another {', '.join(changed)}; use a new --out, or delete the folder"
                )
        write_atomically(path, json.dumps(description, indent=2) + "\n")

    def _log(
        self,
        kind: str,
        figures: dict[str, float],
        seconds: float,
        board: Any,
        progress: Progress,
        measured: dict[str, float] | None = None,
    ) -> None:
        """Logs figures; those the loop has ``measured`` itself are left out on the console."""
        every = figures | (measured or {})
        self._write(kind, seconds, every)
        for name, value in every.items():
            board.add_scalar(f"{kind}/{name}", value, self.step)
        text = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
        if kind != "train" or not sys.stdout.isatty():
            progress.console.print(f"[{seconds:7.0f} s] {kind} step {self.step}  {text}", markup=False, highlight=False)

    def _tell(self, begun: list[Finding], over: list[str], seconds: float, board: Any, progress: Progress) -> None:
        for finding in begun:
            self._write("finding", seconds, dataclasses.asdict(finding))
            board.add_text(f"findings/{finding.name}", f"**{finding.message}**\n\n{finding.advice}", self.step)
            head = f"{finding.level} at step {self.step}: {finding.message}"
            progress.console.print(head, style="yellow", markup=False, highlight=False)
            progress.console.print(Padding(Text(finding.advice), (0, 0, 0, 4)), style="yellow")
        for name in over:
            self._write("finding", seconds, {"name": name, "over": True})

    def _write(self, kind: str, seconds: float, row: dict[str, Any]) -> None:
        with (self.out / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": self.step, "kind": kind, "seconds": round(seconds, 1), **row}) + "\n")


def make_optimizer(model: nn.Module, config: LoopConfig) -> torch.optim.AdamW:
    """AdamW, or Muon for the weights of hidden layers; only parameters with two or more dimensions decay."""
    hidden = hidden_weights(model) if config.optimizer == "muon" else []
    orthogonal = {id(p) for p in hidden}
    others = [p for p in model.parameters() if p.requires_grad and id(p) not in orthogonal]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in others if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in others if p.ndim < 2], "weight_decay": 0.0},
    ]
    betas = (0.9, config.beta2)
    if hidden:
        groups.append({"params": hidden, "weight_decay": config.weight_decay, "muon": True})
        return Muon(groups, lr=config.learning_rate, betas=betas)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas)


def learning_rate_at(step: int, config: LoopConfig) -> float:
    """Linear warm-up, constant, then a cosine over the last ``decay_fraction`` of the run."""
    warm = min(1.0, (step + 1) / max(config.warmup_steps, 1))
    begin = 1 - config.decay_fraction
    late = max(0.0, (step / config.steps - begin) / max(config.decay_fraction, 1e-9))
    cosine = 0.5 * (1 + math.cos(math.pi * min(late, 1.0)))
    return config.learning_rate * warm * (config.final_learning_rate + (1 - config.final_learning_rate) * cosine)


def clip_gradients(model: nn.Module, limit: float) -> Tensor:
    """Scales gradients longer than ``limit`` down to it, and returns the norm of all before.

    Parts that ``model.separate_parts()`` names share no gradients and are clipped apart: a rare event that shakes the
    reward head must not slow the dynamics.
    """
    separate = getattr(model, "separate_parts", None)
    parts: list[nn.Module] = separate() if callable(separate) else [model]
    return torch.stack([nn.utils.clip_grad_norm_(part.parameters(), limit) for part in parts]).norm()


@contextlib.contextmanager
def averaged_weights(model: nn.Module, ema: dict[str, Tensor]):
    """The model with its averaged weights and in eval mode, for the time of the block."""
    own = {name: value.detach().clone() for name, value in model.state_dict().items()}
    was_training = model.training
    model.load_state_dict(ema)
    model.eval()
    try:
        yield model
    finally:
        model.load_state_dict(own)
        model.train(was_training)


def _means(window: list[dict[str, Tensor]]) -> dict[str, float]:
    names = list(dict.fromkeys(name for row in window for name in row))
    means = {name: [float(row[name]) for row in window if name in row] for name in names}
    # A metric may be undefined in a step (no such event in the batch): it is NaN there and left out of the mean.
    kept = {name: [v for v in values if not math.isnan(v)] for name, values in means.items()}
    return {name: sum(values) / len(values) for name, values in kept.items() if values}


def filled(told: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """``told`` with what it lacks of ``defaults``, within nested dicts as well."""
    result = {**defaults, **told}
    for name, value in defaults.items():
        if isinstance(value, dict) and isinstance(result[name], dict):
            result[name] = filled(result[name], value)
    return result


def _truncate_log(path: Path, step: int) -> None:
    """Drops the lines after the checkpoint, which a resumed run writes again, and a last line that was cut off."""
    if path.exists():
        kept = []
        for line in path.read_text().splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
        write_atomically(path, "".join(kept))


@contextlib.contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Collects Ctrl-C instead of raising it, so that a run stops between steps and never within one."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = signal.signal(signal.SIGINT, lambda number, _: received.append(number))
    try:
        yield received
    finally:
        signal.signal(signal.SIGINT, before)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        disable=not sys.stdout.isatty(),
    )
