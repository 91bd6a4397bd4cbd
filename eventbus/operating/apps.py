"""Finding the groups of an application: by import path, or among what is installed.

`myservice.events` is a module: its GROUPS if it has a list of that name, else every Group that it holds.
`myservice.events:billing` is one group of it, or a list of groups. An installed application registers such a path as an
entry point of the group `eventbus.apps`.
"""

import importlib
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from eventbus.errors import ConfigurationError
from eventbus.group import Group

LIST = "GROUPS"
INSTALLED = "eventbus.apps"


class AppNotFound(ConfigurationError):
    """The path leads to nothing, or to what holds no groups."""


class App(NamedTuple):
    """`name`: that of the entry point, or the import path. `source`: the top package's folder, or the module's file.

    A module that only defines events has no groups."""

    name: str
    groups: list[Group]
    source: Path


def load_app(path: str) -> App:
    """Import what the path names; the working directory comes first, as with `python -m`.

    Raises AppNotFound; whatever the module raises while it is imported is left as it is."""
    module_name, _, attribute = path.partition(":")
    if not all(part.isidentifier() for part in module_name.split(".")) or (
        ":" in path and not attribute.isidentifier()
    ):
        raise AppNotFound(f"{path!r} is neither 'module' nor 'module:attribute'")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    _find(module_name)
    module = importlib.import_module(module_name)
    source = _source(module_name)
    if not attribute:
        return App(path, _groups(path, vars(module).get(LIST, _held(vars(module).values()))), source)
    if not hasattr(module, attribute):
        named = [name for name, value in vars(module).items() if isinstance(value, Group)]
        there = f"; it has {', '.join(named)}" if named else ""
        raise AppNotFound(f"module {module_name} has no {attribute!r}{there}")
    groups = _groups(path, getattr(module, attribute))
    if not groups:
        raise AppNotFound(f"{path} holds no groups")
    return App(path, groups, source)


def installed_apps() -> list[App]:
    """What installed distributions have registered, by name."""
    return [load_app(entry.value)._replace(name=entry.name) for entry in _entries()]


def choose(apps: Sequence[App], names: Sequence[str] = ()) -> list[Group]:
    """The groups with these names; without names, all groups of the applications.

    Raises ConfigurationError if there is no group at all, none of a name, or two of the same name."""
    groups = _held(group for app in apps for group in app.groups)
    known = {group.name: group for group in groups}
    if not groups:
        raise AppNotFound(
            f"there are no groups in {', '.join(app.name for app in apps)}: a Group at the top of it is one"
        )
    if len(known) < len(groups):
        twice = sorted({group.name for group in groups if known[group.name] is not group})
        raise ConfigurationError(f"two groups share a name: {', '.join(twice)}; rename one of them")
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigurationError(f"no group is called {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    return [known[name] for name in dict.fromkeys(names)] or groups


def _entries() -> list[EntryPoint]:
    return sorted(entry_points(group=INSTALLED), key=lambda entry: entry.name)


def _find(module_name: str) -> None:
    """Raises AppNotFound if there is no such module. An import would not tell whether this module is missing, or
    another one that it wants."""
    parts = module_name.split(".")
    for name in (".".join(parts[:depth]) for depth in range(1, len(parts) + 1)):
        try:
            found = find_spec(name) is not None
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
            found = False  # what stands before the last dot is no package
        if not found:
            raise AppNotFound(f"there is no module {name}, in {Path.cwd()} or installed")


def _source(module_name: str) -> Path:
    top = sys.modules[module_name.partition(".")[0]]
    if hasattr(top, "__path__"):
        return Path(next(iter(top.__path__))).resolve()
    return Path(top.__file__ or ".").resolve()


def _groups(path: str, found: object) -> list[Group]:
    """Raises AppNotFound for what is neither a group nor a list of groups."""
    if isinstance(found, Group):
        return [found]
    if not isinstance(found, list | tuple) or not all(isinstance(item, Group) for item in found):
        raise AppNotFound(f"{path}: expected a Group, or a list of them, found {type(found).__name__}")
    return list(found)


def _held(values: Iterable[object]) -> list[Group]:
    """The groups among these, each once, in order."""
    return list(dict.fromkeys(value for value in values if isinstance(value, Group)))
