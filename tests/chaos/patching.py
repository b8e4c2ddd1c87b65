"""How a process is made a faulty one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["replace"]


def replace(owner: object, name: str, make: Callable[[Any], Any]) -> None:
    """Put in the place of an attribute of a class or module what is made of it."""
    setattr(owner, name, make(getattr(owner, name)))
