"""For all tests."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("unhurried", parent=settings(), deadline=None)  # this machine may have other work
settings.load_profile("unhurried")
