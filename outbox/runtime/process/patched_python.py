"""Libraries that replace Python's threads and sockets with their own."""

from __future__ import annotations

import sys

from outbox.errors import ConfigurationError

_REPLACED = ("thread", "threading", "socket", "select")


def refuse_patched_python() -> None:
    """
    Raises:
        ConfigurationError: gevent or eventlet has replaced what event loops are made of. Two of them run in a worker,
            each in a thread of its own, and replaced threads are all one.
    """
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    patches = {
        "gevent": gevent is not None and any(map(gevent.is_module_patched, _REPLACED)),
        "eventlet": eventlet is not None and any(map(eventlet.is_monkey_patched, _REPLACED)),
    }
    for library, patched in patches.items():
        if patched:
            raise ConfigurationError(
                f"{library} has replaced Python's threads and sockets, with which no worker can run: leave its "
                "monkey patching out of the modules that a worker imports"
            )
