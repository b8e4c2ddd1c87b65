"""``python -m kantoku_kafka``: the command line."""

from __future__ import annotations

from kantoku_kafka.cli.main import main

if __name__ == "__main__":
    main()
