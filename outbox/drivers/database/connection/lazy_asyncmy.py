"""asyncmy, loaded without what it seldom uses.

It loads ``cryptography`` with itself, which is 7 MiB in every process, and uses it for one thing: a password for
``caching_sha2_password`` or ``sha256_password`` that goes over a connection without TLS, to a server that does not
remember it from an earlier connection.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

_SELDOM_USED = (
    "cryptography.hazmat.primitives.asymmetric.padding",
    "cryptography.hazmat.primitives.hashes",
    "cryptography.hazmat.primitives.serialization",
)


class _LoadedWhenUsed(ModuleType):
    """Stands for the module of its name, which it loads when it is asked for something."""

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self.__name__), name)


def load_asyncmy() -> None:
    """Load asyncmy. Modules of ``cryptography`` that are loaded already stay as they are.

    Raises:
        ModuleNotFoundError: asyncmy is not installed.
    """
    stand_ins = {name: _LoadedWhenUsed(name) for name in _SELDOM_USED if name not in sys.modules}
    sys.modules.update(stand_ins)
    try:
        import_module("asyncmy")
    finally:
        # Only asyncmy has them: other code imports the modules themselves.
        for name, stand_in in stand_ins.items():
            if sys.modules.get(name) is stand_in:
                del sys.modules[name]
