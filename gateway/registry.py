"""Finds providers and functions: every module in the namespace packages `providers` and `functions`, and in given folders.

A module that cannot be loaded is reported with its file and does not stop the others; so is a clash of names.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from gateway.errors import AuthorError
from gateway.sdk.function import DECLARED, CancelOn, Function, Idempotency, Timeouts
from gateway.sdk.function import function as declare_function
from gateway.sdk.provider import Provider
from gateway.sdk.scheme import Hmac, Items
from gateway.traces import authors_part

# What authors call with options by name: a misspelled one is told with the one that was meant.
WITH_OPTIONS: dict[str, Any] = {kind.__name__: kind for kind in (CancelOn, Hmac, Idempotency, Items, Timeouts)}


@dataclass(frozen=True, slots=True)
class Broken:
    """A module that was left out, or a declaration in it: where, why, and the author's part of the traceback."""

    file: str
    message: str
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Registry:
    """What was found. `places`: the folders that were looked through. `idle`: modules in them that declare nothing."""

    providers: dict[str, Provider] = field(default_factory=dict[str, Provider])
    functions: dict[str, Function[Any]] = field(default_factory=dict[str, Function[Any]])
    broken: list[Broken] = field(default_factory=list[Broken])
    places: list[str] = field(default_factory=list[str])
    idle: list[str] = field(default_factory=list[str])


class Origin(NamedTuple):
    """Where something is declared: the file, and the line or class in it."""

    file: str
    part: str


def load_providers(folders: Sequence[Path] = ()) -> Registry:
    """Every provider found."""
    registry = Registry()
    origins: dict[str, Origin] = {}
    for module in _modules("providers", folders, registry):
        kinds = [kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, Provider)]
        own = dict.fromkeys(kind for kind in kinds if kind.__module__ == module.__name__)
        if not own:
            registry.idle.append(_file(module))
        for kind in own:
            _add_provider(kind, module, registry, origins)
    return registry


def load_functions(folders: Sequence[Path] = ()) -> Registry:
    """Every function found."""
    registry = Registry()
    origins: dict[str, Origin] = {}
    for module in _modules("functions", folders, registry):
        declared: list[Function[Any]] = vars(module).get(DECLARED, [])
        if not declared:
            registry.idle.append(_file(module))
        for function in declared:
            for found in filter(None, (function, function.failure)):
                here = Origin(_file(module), f"line {found.spec.origin.rpartition(':')[2]}")
                if _free("function", found.spec.queued_as, here, registry, origins):
                    registry.functions[found.spec.queued_as] = found
    return registry


def shown(path: str) -> str:
    """A path as people know it: from the working directory, where it lies in it."""
    with contextlib.suppress(ValueError):
        return str(Path(path).resolve().relative_to(Path.cwd().resolve()))
    return path


def _add_provider(kind: type[Provider], module: ModuleType, registry: Registry, origins: dict[str, Origin]) -> None:
    here = Origin(_file(module), f"class {kind.__name__}")
    try:
        provider = kind()
    except Exception as error:
        registry.broken.append(Broken(here.file, f"{here.part}: {_said(error)}", authors_part(traceback.format_exc())))
        return
    # A file that bears the provider's name is its home: a newcomer that takes the name does not push it out.
    at_home = Path(here.file).stem.replace("_", "-") == provider.name
    if at_home and provider.name in origins and origins[provider.name].file != here.file:
        _refuse_second("provider", provider.name, origins.pop(provider.name), here, registry)
    if _free("provider", provider.name, here, registry, origins):
        registry.providers[provider.name] = provider


def _free(noun: str, name: str, here: Origin, registry: Registry, origins: dict[str, Origin]) -> bool:
    kept = origins.setdefault(name, here)
    if kept is not here:
        _refuse_second(noun, name, here, kept, registry)
    return kept is here


def _refuse_second(noun: str, name: str, left_out: Origin, kept: Origin, registry: Registry) -> None:
    where = "" if kept.file == left_out.file else f"{shown(kept.file)}, "
    message = f"{left_out.part}: {noun} {name!r} is also declared in {where}{kept.part}, which is kept; give one of them another name"
    registry.broken.append(Broken(left_out.file, message))


def _modules(package: str, folders: Sequence[Path], registry: Registry) -> Iterator[ModuleType]:
    for file, name in _files(package, folders, registry):
        try:
            yield _import(name, file)
        except Exception as error:
            registry.broken.append(Broken(str(file), _said(error) + _line(error, file), authors_part(traceback.format_exc())))
        except SystemExit:
            registry.broken.append(Broken(str(file), "it calls sys.exit() when it is imported"))


def _said(error: Exception) -> str:
    """An error in one line, with what to do where Python's own words leave it open."""
    first = str(error).partition("\n")[0]
    if isinstance(error, AuthorError):
        return first
    unknown = re.search(r"^(?:function|(\w+)\.__init__)\(\) got an unexpected keyword argument '(\w+)'", first)
    if unknown and (unknown[1] is None or unknown[1] in WITH_OPTIONS):
        taker = WITH_OPTIONS.get(unknown[1], declare_function)
        near = difflib.get_close_matches(unknown[2], inspect.signature(taker).parameters, 1)
        return f"{unknown[1] or '@function'} takes no `{unknown[2]}`{f'; did you mean `{near[0]}`?' if near else ''}"
    if first.startswith("function() takes 0 positional arguments"):
        return "@function needs to be told what to listen to: @function(on=…)"
    return f"{type(error).__name__}: {first}"


def _line(error: Exception, file: Path) -> str:
    """Where in the file it happened, if it was there."""
    if isinstance(error, SyntaxError):
        return f" (line {error.lineno})" if error.filename == str(file) and f"line {error.lineno}" not in str(error) else ""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == file]
    return f" (line {lines[-1]})" if lines else ""


def _files(package: str, folders: Sequence[Path], registry: Registry) -> Iterator[tuple[Path, str]]:
    """Files to load with the module names to load them under; the first of a name wins, as on `sys.path`."""
    spec = importlib.util.find_spec(package)
    places = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    if spec is not None and spec.origin is not None:
        message = f"it hides every other folder of {package}, those that are installed too; remove it"
        registry.broken.append(Broken(spec.origin, message))
    seen: dict[str, Path] = {}
    for place in [*places, *folders]:
        if not place.is_dir():
            registry.broken.append(Broken(str(place), f"this folder of {package} does not exist"))
            continue
        registry.places.append(str(place))
        for file in sorted([*place.glob("*.py"), *place.glob("*/__init__.py")]):
            stem = file.parent.name if file.name == "__init__.py" else file.stem
            if stem.startswith("_") or file in seen.values():
                continue
            if stem in seen:
                message = f"its name is taken by {shown(str(seen[stem]))}, which is kept; rename the file"
                registry.broken.append(Broken(str(file), message))
                continue
            seen[stem] = file
            yield file, f"{package}.{stem}"


def _import(name: str, file: Path) -> ModuleType:
    spec = importlib.util.find_spec(name) if name.rpartition(".")[2].isidentifier() else None
    if spec is not None and spec.origin is not None and Path(spec.origin).resolve() == file.resolve():
        return importlib.import_module(name)
    inside = [str(file.parent)] if file.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=inside)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _file(module: ModuleType) -> str:
    return module.__file__ or module.__name__
