"""How full memory is: the machine's, that of the container the run is in, and the accelerator's."""

from __future__ import annotations

from pathlib import Path

import torch

MACHINE = Path("/proc/meminfo")
CONTAINERS = (
    # Limit, use, and the line of memory.stat that tells how much of the use is files that can be let go.
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "inactive_file"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes",
     "total_inactive_file"),
)  # fmt: skip
"""Where a container's memory is told: control groups of version 2 and 1."""


def memory_share() -> float | None:
    """Share of memory in use, in [0, 1], by whichever is fuller, machine or container; None where neither tells."""
    shares = [_machine(), *(_container(Path(limit), Path(use), files) for limit, use, files in CONTAINERS)]
    return max((share for share in shares if share is not None), default=None)


def device_memory_share(device: torch.device) -> float | None:
    """Share of the accelerator's memory that tensors have taken at their peak; None where it cannot be told."""
    if device.type != "cuda":
        return None
    return torch.cuda.max_memory_allocated(device) / torch.cuda.get_device_properties(device).total_memory


def _machine() -> float | None:
    try:
        lines = dict(line.split(":", 1) for line in MACHINE.read_text().splitlines() if ":" in line)
        total, available = (int(lines[name].split()[0]) for name in ("MemTotal", "MemAvailable"))
        return 1 - available / total
    except (OSError, ValueError, KeyError, IndexError, ZeroDivisionError):
        return None


def _container(limit: Path, use: Path, files: str) -> float | None:
    try:
        stat = dict(line.split() for line in use.with_name("memory.stat").read_text().splitlines())
        # Without a limit it says "max", which is no number, or a number that no machine has.
        return (int(use.read_text()) - int(stat[files])) / int(limit.read_text())
    except (OSError, ValueError, KeyError, ZeroDivisionError):
        return None
