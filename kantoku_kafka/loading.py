"""From a reference on a command line to the user's app."""

from __future__ import annotations

from kantoku_kafka.app import Kantoku
from kantoku_kafka.errors import UsageError
from kantoku_kafka.importing import imported

__all__ = ["load_app"]


def load_app(reference: str) -> Kantoku:
    """Import ``module:attribute``; the current directory is searched first.

    Raises:
        UsageError: in one sentence, whatever went wrong.
    """
    app = imported(reference, "shop.tasks:kan")
    if not isinstance(app, Kantoku):
        module_name, _, attribute = reference.partition(":")
        found = "is missing" if app is None else f"is a {type(app).__name__}"
        raise UsageError(f"{attribute!r} in {module_name} {found}, where a Kantoku is wanted.")
    return app
