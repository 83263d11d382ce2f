"""Checks of weights as such: is every number finite, and has every layer learned something?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from neuralsim.training.diagnostic_rules import Finding


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What it was.
        seen: What there was to see, in words, for when nothing is wrong with it.
        findings: What is wrong, if anything.
    """

    name: str
    seen: str
    findings: tuple[Finding, ...] = ()


def check_finite(name: str, tensors: Mapping[str, Tensor]) -> Check:
    """Whether all numbers are finite; ``tensors`` may hold integers too."""
    bad = [key for key, value in tensors.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    numbers = sum(value.numel() for value in tensors.values())
    findings = []
    if bad:
        findings.append(
            Finding(
                "weights_not_finite",
                "error",
                f"{len(bad)} of {len(tensors)} tensors hold NaN or infinity: {some(bad)}",
                "nothing can come of these weights: get the file again, or go back to an earlier checkpoint and train "
                "with a smaller --loop.learning-rate or --loop.dtype float32",
            )
        )
    return Check(name, f"{numbers:,} numbers, all finite", tuple(findings))


def check_constant(name: str, tensors: Mapping[str, Tensor]) -> Check:
    """Whether a layer's weight is one number throughout, as output layers are before training."""
    layers = {
        key: value
        for key, value in tensors.items()
        if key.split(".")[-1] == "weight" and value.ndim >= 2 and value.numel() > 1 and value.is_floating_point()
    }
    dead = [key for key, value in layers.items() if bool((value == value.flatten()[0]).all())]
    findings = []
    if dead:
        findings.append(
            Finding(
                "layers_constant",
                "warning",
                f"{len(dead)} of {len(layers)} layers hold one number throughout: {some(dead)}",
                "they were never trained, or training has silenced them: see whether the run that should have trained "
                "them has, and whether something else's gradient is cut off",
            )
        )
    return Check(name, f"{len(layers)} layers, none of them constant", tuple(findings))


def some(names: list[str], most: int = 3) -> str:
    """The first of many names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def total_std(values: Tensor) -> float:
    """Root mean over positions of the variance over the first dimension: 0 if all entries are the same."""
    return float(torch.var(values.float(), dim=0, correction=0).mean().sqrt())
