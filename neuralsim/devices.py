"""Which device and which number format to use."""

from __future__ import annotations

import contextlib

import torch


def choose_device(name: str = "auto") -> torch.device:
    """``"auto"`` is CUDA, else MPS, else the CPU; anything else is taken at its word.

    Raises:
        ValueError: If the device is unknown or not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"unknown device {name!r}; use auto, cpu, cuda or mps") from None
    missing = (device.type == "cuda" and not torch.cuda.is_available()) or (
        device.type == "mps" and not torch.backends.mps.is_available()
    )
    if missing:
        raise ValueError(f"device {name!r} is not available on this machine; use device='auto' or 'cpu'")
    return device


def has_native_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 arithmetic is done by the hardware; emulated, it is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """``"auto"`` is bfloat16 where it is native, else float32.

    Raises:
        ValueError: For a name other than auto, float32 or bfloat16.
    """
    if name == "auto":
        return torch.bfloat16 if has_native_bfloat16(device) else torch.float32
    if name not in ("float32", "bfloat16"):
        raise ValueError(f"unknown dtype {name!r}; use auto, float32 or bfloat16")
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def choose_dream_dtype(name: str, device: torch.device) -> torch.dtype:
    """As :func:`choose_dtype`, but float32 on CPUs unless asked otherwise.

    So a world dreams the same on every machine, as its card measured it.
    """
    return choose_dtype("float32" if name == "auto" and device.type == "cpu" else name, device)


def fast_dream_dtype(name: str, device: torch.device) -> str:
    """Name of the number format for dreams that are learned from or planned in, but not looked at.

    ``"auto"`` is bfloat16 wherever it is native, on CPUs too.
    """
    return str(choose_dtype(name, device)).removeprefix("torch.")


def autocast(device: torch.device, dtype: str) -> contextlib.AbstractContextManager:
    """Mixed precision for training: bfloat16 autocast, or nothing for float32."""
    if choose_dtype(dtype, device) == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)
