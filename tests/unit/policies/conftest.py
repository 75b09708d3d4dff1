"""How Hypothesis runs its examples."""

from __future__ import annotations

from hypothesis import settings

# How long an example takes says something of the machine.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
