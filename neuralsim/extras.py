"""Optional dependencies: imported where they are needed, with an error that names the extra."""

from __future__ import annotations

import importlib
from types import ModuleType


def require(module: str, extra: str, why: str) -> ModuleType:
    """Imports an optional module.

    Args:
        module: Import name, e.g. ``"ale_py"``.
        extra: The extra of this package that installs it, e.g. ``"atari"``.
        why: What needs it, for the error: ``"recording Atari games"``.

    Raises:
        ModuleNotFoundError: If it is not installed; the message holds the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise  # the module is there, one of its own imports is not: that error says more
        raise ModuleNotFoundError(
            f'{why} needs the package "{module}", which is not installed: pip install "neuralsim-gym[{extra}]"',
            name=module,
        ) from None
