"""Fetch the jars of Maven coordinates and write their paths to stdout, as JSON. A script that needs ``jgo``.

A process of its own can be silenced, killed, and given its own environment. ``jgo.resolve`` needs no Java;
``jgo.build``, which tells jars from modules, needs one and would download it.
"""

from __future__ import annotations

import json
import sys

__all__ = ["main"]


def main(endpoint: str) -> None:
    """Resolve and download one endpoint (``group:artifact:version`` joined by ``+``) and all it needs."""
    import jgo

    paths = [str(artifact.resolve()) for artifact in jgo.resolve(endpoint)]
    json.dump(paths, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
