"""What can go wrong in training, as data: which figure is looked at, when it is wrong, and what to do about it.

A rule looks at one figure by its name, whoever reports it: the loop, a model among its metrics, an evaluation. A
later phase is watched as soon as it reports figures of these names; what nobody reports is not judged.

Measured by the loop (:mod:`neuralsim.training.gauges`), for every model:

    loss, gradient_norm      means since the last line of the log, as in the log
    clipped                  share of the last 100 steps whose gradient was clipped
    waiting                  share of the last 100 steps' time that went by until the batch was there
    memory, device_memory    share of the machine's, and of the accelerator's, memory that is taken
    frozen_gradients         number of parameters that must stay as they are and got a gradient all the same
    latent_std               standard deviation of the quietest latent channel, where batches hold ``latents``
    reward_majority          share of the commonest reward, where batches hold ``rewards``

Reported by models and evaluations:

    prediction_std           standard deviation of predicted latents over a batch
    reward_prediction_std    standard deviation of predicted rewards over a batch
    error_1                  held-out error one step ahead, over that of copying the last frame
    cloning_accuracy         share of actions that behaviour cloning gets right
    policy_entropy           mean entropy of a categorical policy, in nats
    policy_max_probability   mean probability of the policy's likeliest action
    advantage_std            standard deviation of the advantages
    positive_samples         samples with an advantage of 0 or more (PMPO's D+), per update
    negative_samples         samples with an advantage below 0 (D-), per update
    value_error              root mean square of value less return
    return_std               standard deviation of the returns
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Level = Literal["note", "warning", "error"]
"""note: worth knowing, and no fault in itself; warning: look into it; error: what comes out will be of no use."""

CLEAR = 0.1
"""A figure that hovers about its limit is told once: what was wrong is over when it is a tenth away from it."""


@dataclass(frozen=True)
class Finding:
    """Something that is, or may be, wrong.

    Attributes:
        name: Short name, the same whenever the same thing is found.
        level: How bad it is.
        message: What was found, with the measured value.
        advice: What to do about it.
    """

    name: str
    level: Level
    message: str
    advice: str


@dataclass(frozen=True)
class Rule:
    """One thing that can go wrong.

    Attributes:
        name: Name of its findings.
        figure: Name of the figure it looks at.
        label: What that figure is, in words.
        advice: What to do.
        above: Wrong above this.
        below: Wrong below this.
        per: Name of a figure that it is divided by first; "" for none.
        after: First step at which it is judged.
        level: Of its findings.
        percent: The figure is a share, to be shown in percent.
    """

    name: str
    figure: str
    label: str
    advice: str
    above: float = math.inf
    below: float = -math.inf
    per: str = ""
    after: int = 0
    level: Level = "warning"
    percent: bool = False

    def measure(self, figures: Mapping[str, float]) -> float | None:
        """The value to judge, or None where the figures do not hold it."""
        value = figures.get(self.figure)
        if value is None or not self.per:
            return value
        scale = figures.get(self.per)
        return value / scale if scale else None

    def broken(self, value: float) -> bool:
        """Whether a value is beyond the limit. One that is not finite is not judged here."""
        return math.isfinite(value) and not self.below <= value <= self.above

    def mended(self, value: float) -> bool:
        """Whether a value is well within the limit again."""
        return (1 + CLEAR) * self.below <= value <= (1 - CLEAR) * self.above

    def finding(self, value: float) -> Finding:
        """What to tell of a value beyond the limit."""
        side, limit = ("above", self.above) if value > self.above else ("below", self.below)
        return Finding(self.name, self.level, f"{self.label} is {self._show(value)}, {side} {limit:g}", self.advice)

    def _show(self, value: float) -> str:
        return f"{value:.3g} ({100 * value:.1f} %)" if self.percent else f"{value:.3g}"


RULES: tuple[Rule, ...] = (
    Rule(
        "loss_high",
        "loss",
        "the loss",
        "lower --loop.learning-rate, lengthen --loop.warmup-steps, and look for what does not belong in the recordings "
        "(neuralsim data show)",
        above=100,
    ),
    Rule(
        "gradient_high",
        "gradient_norm",
        "the gradient norm",
        "lower --loop.learning-rate or lengthen --loop.warmup-steps; clipping is meant for single spikes",
        above=100,
    ),
    Rule(
        "gradient_vanished",
        "gradient_norm",
        "the gradient norm",
        "nothing is learned: see whether what should learn is frozen, and whether the loss depends on it",
        below=1e-6,
    ),
    Rule(
        "always_clipped",
        "clipped",
        "the share of steps with a clipped gradient",
        "harmless as long as the figures improve (the step's length is then the optimiser's alone); if they do not, "
        "lower --loop.learning-rate, or raise --loop.gradient-clip to about the usual norm",
        above=0.99,
        level="note",
        percent=True,
    ),
    Rule(
        "data_starving",
        "waiting",
        "the share of the time spent waiting for data",
        "keep recordings and latents on a local disk, and clips as short as the model allows (history, lead, rollout); "
        "on a busy machine give the run fewer --loop.threads",
        above=0.3,
        percent=True,
    ),
    Rule(
        "memory_full",
        "memory",
        "the share of memory in use",
        "lower --batch-size, or --max-frames of a tokenizer's run: when memory is full, the system kills the run",
        above=0.92,
        # Not at once: a run that has just begun may share the machine with one that is about to end.
        after=50,
        percent=True,
    ),
    Rule(
        "device_memory_full",
        "device_memory",
        "the share of the accelerator's memory in use",
        "lower --batch-size, or train with --loop.dtype bfloat16",
        above=0.95,
        percent=True,
    ),
    Rule(
        "frozen_gradients",
        "frozen_gradients",
        "the number of frozen parameters with a gradient",
        "detach what the frozen part hands on, or freeze it (requires_grad_(False)) before the optimiser is made",
        above=0,
        level="error",
    ),
    Rule(
        "latent_dead",
        "latent_std",
        "the standard deviation of the quietest latent channel",
        "the tokenizer leaves a channel unused: train it longer, or with fewer --model.latent-channels",
        below=0.01,
    ),
    Rule(
        "reward_imbalance",
        "reward_majority",
        "the share of the commonest reward in the clips",
        "a head that always says it is nearly always right: go by reward_recall and reward_precision instead of the "
        "loss, and show events more often (--clips.events)",
        above=0.9,
        level="note",
        percent=True,
    ),
    Rule(
        "prediction_collapsed",
        "prediction_std",
        "the standard deviation of the predictions",
        "the model says the same whatever it sees: lower --loop.learning-rate, and look at the latents it is fed",
        below=0.01,
        after=200,
        level="error",
    ),
    Rule(
        "reward_prediction_constant",
        "reward_prediction_std",
        "the standard deviation of the predicted rewards",
        "show events more often (--clips.events), and see whether the recordings hold rewards at all",
        below=1e-4,
        after=1000,
    ),
    Rule(
        "worse_than_copying",
        "error_1",
        "the held-out error one step ahead, over that of copying the last frame,",
        "see whether actions and frames belong together (action t leads from frame t to t + 1), and whether held-out "
        "and training recordings were made alike",
        above=1,
        after=1000,
    ),
    Rule(
        "cloning_failed",
        "cloning_accuracy",
        "the share of actions cloned right",
        "see whether each action stands beside the frame that it was chosen on, and whether the recorded player can be "
        "predicted at all (a random one cannot)",
        below=0.05,
        after=1000,
        percent=True,
    ),
    Rule(
        "policy_collapsed",
        "policy_entropy",
        "the entropy of the policy in nats",
        "the policy explores no more: lower its learning rate, or tie it more closely to its prior (beta)",
        below=0.01,
    ),
    Rule(
        "policy_stuck",
        "policy_max_probability",
        "the mean probability of the likeliest action",
        "the policy does not depend on chance any more and gets no gradient: lower its learning rate, go back to an "
        "earlier checkpoint",
        above=0.999,
        percent=True,
    ),
    Rule(
        "advantages_zero",
        "advantage_std",
        "the standard deviation of the advantages",
        "there is nothing to improve on: see whether dreams reach rewards (longer horizon, other starts), and whether "
        "the reward head says anything but 0",
        below=1e-6,
    ),
    Rule(
        "few_positive",
        "positive_samples",
        "the number of samples with an advantage of 0 or more (D+)",
        "raise the batch size or the horizon; if it stays so, the values are too high",
        below=10,
    ),
    Rule(
        "few_negative",
        "negative_samples",
        "the number of samples with an advantage below 0 (D-)",
        "raise the batch size or the horizon; if it stays so, the values are too low",
        below=10,
    ),
    Rule(
        "value_far",
        "value_error",
        "the error of the values, over the standard deviation of the returns,",
        "a constant would do better: raise the value head's learning rate, and see whether returns and values are "
        "taken at the same state",
        above=1,
        per="return_std",
        after=1000,
    ),
)
"""All of them; one figure may have several."""
