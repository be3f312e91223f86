"""Finds providers and functions: every module in the namespace packages `providers` and `functions`, and in given folders.

A module that cannot be loaded is reported with its file and does not stop the others; so is a clash of names.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from gateway.errors import AuthorError
from gateway.sdk.function import Function
from gateway.sdk.provider import Provider


@dataclass(frozen=True, slots=True)
class Broken:
    """A module that was left out, or a declaration in it: where, and why."""

    file: str
    message: str
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Registry:
    """What was found. `places` are the folders that were looked through."""

    providers: dict[str, Provider] = field(default_factory=dict[str, Provider])
    functions: dict[str, Function] = field(default_factory=dict[str, Function])
    broken: list[Broken] = field(default_factory=list[Broken])
    places: list[str] = field(default_factory=list[str])


def load_providers(folders: Sequence[Path] = ()) -> Registry:
    """Every provider found."""
    registry = Registry()
    origins: dict[str, str] = {}
    for module in _modules("providers", folders, registry):
        for value in list(vars(module).values()):
            if isinstance(value, type) and issubclass(value, Provider) and value.__module__ == module.__name__:
                _add_provider(value, module, registry, origins)
    return registry


def load_functions(folders: Sequence[Path] = ()) -> Registry:
    """Every function found."""
    registry = Registry()
    origins: dict[str, str] = {}
    for module in _modules("functions", folders, registry):
        for value in list(vars(module).values()):
            if not isinstance(value, Function) or value.handler.__module__ != module.__name__:
                continue
            if _free("function", value.spec.id, module, registry, origins):
                registry.functions[value.spec.id] = value
    return registry


def _add_provider(kind: type[Provider], module: ModuleType, registry: Registry, origins: dict[str, str]) -> None:
    try:
        provider = kind()
    except AuthorError as error:
        registry.broken.append(Broken(_file(module), f"provider {kind.__name__}: {error}"))
        return
    if _free("provider", provider.name, module, registry, origins):
        registry.providers[provider.name] = provider


def _free(noun: str, name: str, module: ModuleType, registry: Registry, origins: dict[str, str]) -> bool:
    if name in origins:
        message = f"{noun} {name!r} is also declared in {origins[name]}, which is kept; give one of them another name"
        registry.broken.append(Broken(_file(module), message))
        return False
    origins[name] = _file(module)
    return True


def _modules(package: str, folders: Sequence[Path], registry: Registry) -> Iterator[ModuleType]:
    for file, name in _files(package, folders, registry):
        try:
            yield _import(name, file)
        except Exception as error:
            first = str(error).partition("\n")[0]
            message = first if isinstance(error, AuthorError) else f"{type(error).__name__}: {first}"
            registry.broken.append(Broken(str(file), message, traceback.format_exc()))
        except SystemExit:
            registry.broken.append(Broken(str(file), "it calls sys.exit() when it is imported"))


def _files(package: str, folders: Sequence[Path], registry: Registry) -> Iterator[tuple[Path, str]]:
    """Files to load with the module names to load them under; the first of a name wins, as on `sys.path`."""
    spec = importlib.util.find_spec(package)
    places = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    seen: dict[str, Path] = {}
    for place in [*places, *folders]:
        if not place.is_dir():
            registry.broken.append(Broken(str(place), f"this folder of {package} does not exist"))
            continue
        registry.places.append(str(place))
        for file in sorted(place.glob("*.py")):
            if file.name.startswith("_") or file in seen.values():
                continue
            if file.stem in seen:
                message = f"its name is taken by {seen[file.stem]}, which is kept; rename the file"
                registry.broken.append(Broken(str(file), message))
                continue
            seen[file.stem] = file
            yield file, f"{package}.{file.stem}"


def _import(name: str, file: Path) -> ModuleType:
    spec = importlib.util.find_spec(name) if file.stem.isidentifier() else None
    if spec is not None and spec.origin is not None and Path(spec.origin).resolve() == file.resolve():
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(name, file)
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
