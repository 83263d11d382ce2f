"""JSON files of many parts: a line for each, since indented all the way they would take twice the room."""

from __future__ import annotations

import json
from typing import Any


def dump_parts(told: dict[str, Any]) -> str:
    """The text of a file: an object with a line for each of its parts.

    Raises:
        TypeError: If a part holds something that JSON cannot.
    """
    return "{\n" + ",\n".join(f" {json.dumps(part)}: {json.dumps(value)}" for part, value in told.items()) + "\n}\n"
