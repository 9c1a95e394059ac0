"""Stage 0, one process of several that `pixcloud.launch.in_processes` started.

`python -m pixcloud.launched MODULE:FUNCTION CONFIG.json RESULT.json` calls the function with the
config that the file holds, and the first process writes the result.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import os
import sys
from pathlib import Path
from typing import Any, get_type_hints

import pixcloud.machine  # noqa: F401 - notes who started this process


def call(function: str, given: Path) -> Any:
    """The function's result for the config in a file; its annotation says of which class."""
    from pixcloud.config import from_dict

    module, name = function.split(":")
    target = getattr(importlib.import_module(module), name)
    kind = get_type_hints(target)[next(iter(inspect.signature(target).parameters))]
    return target(from_dict(kind, json.loads(given.read_text(encoding="utf-8"))))


def main() -> int:
    """Run it as the command line would."""
    from pixcloud.cli import guarded

    function, given, answer = sys.argv[1:]

    def work() -> int:
        result = call(function, Path(given))
        if result is not None and os.environ.get("RANK") == "0":
            values = {k: str(v) for k, v in vars(result).items() if isinstance(v, Path)}
            plain = {**dataclasses.asdict(result), **values}
            Path(answer).write_text(json.dumps(plain), encoding="utf-8")
        return 0

    return guarded(work)


if __name__ == "__main__":
    sys.exit(main())
