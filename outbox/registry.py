"""The job classes by the names under which their rows are stored.

A row names its class; only what is registered here can be made from it. Nothing is ever imported or unpickled
because a row says so.
"""

from __future__ import annotations

import importlib
import sys
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from outbox.errors import ConfigurationError, UnknownJob

if TYPE_CHECKING:
    from outbox.job import Job

_classes: dict[str, type[Job]] = {}
# Made while their modules were imported, as they are in every process that imports those.
_made_on_import: WeakSet[type[Job]] = WeakSet()
# Found to be reachable, since a class was last registered.
_reachable: set[type[Job]] = set()

# What a script is called in its own process. A worker's own script is called the same there.
_SCRIPTS = ("__main__", "__mp_main__")


def importable_module(module: str) -> str:
    """The name under which other processes import ``module``. That of a script is the name of its file, or what
    ``python -m`` was given; a script without a file, as of ``python -c``, has none and keeps its own."""
    if module not in _SCRIPTS:
        return module
    script = sys.modules.get(module)
    spec = getattr(script, "__spec__", None)
    if spec is not None:
        return str(spec.name)
    file = Path(getattr(script, "__file__", None) or "")
    return file.stem if file.suffix == ".py" and file.stem.isidentifier() else module


def register(job_class: type[Job]) -> None:
    """Make ``job_class`` known under its name and its aliases.

    Raises:
        ConfigurationError: another class already has one of these names.
    """
    for name in (job_class.name, *job_class.aliases):
        known = _classes.get(name)
        if known is not None and not _same_definition(known, job_class):
            raise ConfigurationError(
                f"two job classes are named {name!r}: {known.__module__}.{known.__qualname__} and "
                f"{job_class.__module__}.{job_class.__qualname__}; give one of them another `name`"
            )
    for name in (job_class.name, *job_class.aliases):
        _classes[name] = job_class
    _reachable.clear()
    if _is_being_imported(job_class.__module__):
        _made_on_import.add(job_class)


def _same_definition(one: type[Job], other: type[Job]) -> bool:
    """A module that is imported again, or a class made again by the same line, replaces itself."""
    return one.__qualname__ == other.__qualname__ and importable_module(one.__module__) == importable_module(
        other.__module__
    )


def resolve(name: str) -> type[Job]:
    """The class registered under ``name``.

    Raises:
        UnknownJob: there is none; the message says how to make it known.
    """
    try:
        return _classes[name]
    except KeyError:
        raise UnknownJob(
            f"no job class is registered as {name!r}: import its module (OUTBOX_JOBS), or add the name to the "
            "`aliases` of the class that took its place"
        ) from None


def is_registered(name: str) -> bool:
    """Whether a class is known under this name or alias."""
    return name in _classes


def names_of(name: str) -> tuple[str, ...]:
    """All names of the class that is registered under ``name``: its own and its aliases. Of an unknown one, ``name``
    alone."""
    kind = _classes.get(name)
    return (name,) if kind is None else (kind.name, *kind.aliases)


def unreachable(job_class: type[Job]) -> str | None:
    """Why no worker can make this class from a row, and what to do; None if one can, as far as is known here."""
    if job_class in _reachable:
        return None
    reason = _why_unreachable(job_class)
    if reason is None:
        _reachable.add(job_class)
    return reason


def _why_unreachable(job_class: type[Job]) -> str | None:
    name, module = job_class.name, job_class.__module__
    known = _classes.get(name)
    if known is not None and module in _SCRIPTS and _same_definition(known, job_class):
        # The script that runs was imported as a module as well.
        known = job_class
    if known is not job_class:
        return f"a class that was defined later has the same name {name!r}: define it once, or give one another `name`"
    origin = job_class.__pydantic_generic_metadata__["origin"]
    if origin is not None and origin.__module__ not in _SCRIPTS:
        # Made once in a process, and called after the first module that asks for it.
        if job_class in _made_on_import and module == origin.__module__:
            return None
        return (
            f"it is parametrised outside the module {origin.__module__}, so that a worker may not know it: derive a "
            f"class from it in a module that OUTBOX_JOBS names (`class Named({job_class.__qualname__}): …`)"
        )
    pinned = name != f"{importable_module(module)}.{job_class.__qualname__}"
    if pinned or (job_class in _made_on_import and module not in _SCRIPTS):
        # Where a name is pinned, a worker may have a class of that name from elsewhere.
        return None
    if module in _SCRIPTS and importable_module(module) == module:
        return (
            "it is defined in code that is no file, which no worker can import: define it in a module that OUTBOX_JOBS "
            "names"
        )
    found = _found(module, job_class.__qualname__)
    if found is job_class:
        return None
    if found is None:
        return (
            f"no worker finds it by importing {module}: define it at the level of a module that OUTBOX_JOBS names, and "
            "not in a function"
        )
    return f"{module}.{job_class.__qualname__} is something else, which a worker would take for it: rename one of them"


def _is_being_imported(module: str) -> bool:
    spec = getattr(sys.modules.get(module), "__spec__", None)
    return getattr(spec, "_initializing", False)


def _found(module: str, path: str) -> Any:
    """What a module has under the qualified name of a class; None if it is not there."""
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    return found


def registered() -> dict[str, type[Job]]:
    """Every registered name with its class, aliases included."""
    return dict(_classes)


def import_jobs(modules: Iterable[str]) -> None:
    """Import ``modules`` so that the job classes in them register.

    Raises:
        ConfigurationError: a module cannot be imported; the message names it and the reason.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except (Exception, SystemExit) as error:
            raise ConfigurationError(
                f"OUTBOX_JOBS names the module {module!r}, which cannot be imported: {import_failure(error)}"
            ) from error


def load_function(reference: str, flag: str) -> Any:
    """The function that ``flag`` names as ``module:function``.

    Raises:
        ConfigurationError: the reference is not ``module:function``, or cannot be imported.
    """
    module, _, path = reference.partition(":")
    if not module or not path:
        raise ConfigurationError(f"{flag} {reference!r} is not MODULE:FUNCTION")
    try:
        imported = importlib.import_module(module)
    except (Exception, SystemExit) as error:
        raise ConfigurationError(f"{flag} {reference!r} cannot be imported: {import_failure(error)}") from error
    found = getattr(imported, path, None)
    if found is None:
        raise ConfigurationError(f"{flag} {reference!r}: the module {module!r} has no {path!r}")
    return found


def import_failure(error: BaseException) -> str:
    """Why a module cannot be imported, and where: the file and the line of the application that are to blame.

    A script without a ``__main__`` guard ends whatever imports it.
    """
    if isinstance(error, SystemExit):
        what = f"it calls sys.exit({'' if error.code is None else repr(error.code)})"
    elif isinstance(error, SyntaxError):
        # Its text has file and line already, but only the last part of the file's path.
        return f"{type(error).__name__}: {error.msg} ({error.filename}, line {error.lineno})"
    else:
        what = f"{type(error).__name__}: {error}"
    place = _place(error)
    if place is None and isinstance(error, ModuleNotFoundError):
        place = f"looked for from the directory {_directory()}"
    return f"{what} ({place})" if place else what


def _directory() -> str:
    try:
        return str(Path.cwd())
    except OSError:
        return "that has been removed"


def _place(error: BaseException) -> str | None:
    """The last line of the application's own code, or of any code, that ran before the error."""
    frames = [
        (frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if not frame.f_code.co_filename.startswith(_NOT_ITS_OWN)
    ]
    own = [(file, line) for file, line in frames if not file.startswith(_LIBRARIES) and "site-packages" not in file]
    file, line = (own or frames or [("", 0)])[-1]
    return f"{file}, line {line}" if file else None


_NOT_ITS_OWN = ("<frozen ", importlib.__file__, str(Path(__file__).parent))
_LIBRARIES = tuple({path for name in ("stdlib", "platstdlib") if (path := sysconfig.get_path(name))})
