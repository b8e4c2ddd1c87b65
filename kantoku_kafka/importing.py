"""From ``module:attribute`` to what it names."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from kantoku_kafka.errors import UsageError

__all__ = ["imported"]


def imported(reference: str, example: str) -> Any:
    """What ``module:attribute`` names; None if the module has no such attribute. The current directory comes first.

    Raises:
        UsageError: in one sentence, whatever went wrong.
    """
    module_name, colon, attribute = reference.partition(":")
    if not (module_name and colon and attribute):
        raise UsageError(f"{reference!r} names nothing to import: write MODULE:ATTRIBUTE, e.g. {example}.")
    try:
        here = str(Path.cwd())
    except FileNotFoundError as error:
        raise UsageError("The current directory is not there any more: change to another one.") from error
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and module_name.split(".")[: len(error.name.split("."))] == error.name.split("."):
            raise UsageError(f"There is no module {module_name!r} in {here} or on the Python path.") from error
        raise UsageError(f"{module_name} does not import: no module {error.name!r}; install it first.") from error
    except UsageError:
        raise
    except SystemExit as error:
        raise UsageError(f"{module_name} does not import: it ends the program with {error.code!r}.") from error
    except Exception as error:
        told = " ".join(str(error).split())  # a failed validation tells of itself in many lines
        raise UsageError(f"{module_name} does not import: {type(error).__name__}: {told}") from error
    return getattr(module, attribute, None)
