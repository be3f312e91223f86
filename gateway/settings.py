"""One frozen value with every setting: environment, then `tidegate.toml`, then defaults. The only reader of both."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from gateway.errors import SettingsError

# What our own processes tell each other.
INTERNAL = ("TIDEGATE_PARENT_FD", "TIDEGATE_LISTEN_FD", "TIDEGATE_PROCESS_ID", "TIDEGATE_REPLACES")

DAYS = ("retention_days", "retention_failed_days", "retention_requests_days", "idempotency_days")
MOST_DAYS = 36_500

_SECRET = re.compile(r"([A-Z0-9_]+)_WEBHOOK_SECRET")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


def secret_variable(name: str) -> str:
    """The environment variable that makes a provider's source, such as `STRIPE_WEBHOOK_SECRET`."""
    return f"{name.upper().replace('-', '_')}_WEBHOOK_SECRET"


@dataclass(frozen=True, kw_only=True)
class SourceSettings:
    """A source as configured: its name, provider, live secrets (newest first) and where that was written."""

    name: str
    provider: str
    secrets: tuple[str, ...]
    origin: str


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of one process; docs/configuration.md has the list for people.

    `app`: a name for the functions that this worker offers, of which all workers have the same.

    Retention, in days, fractions too, and 0 keeps for ever: `retention_days` for runs that succeeded or were cancelled, and
    for events without runs; `retention_failed_days` for failed runs; `retention_requests_days` for requests that became no
    event of their own (quarantined, duplicate). An event stays until all of its runs may go, and its idempotency key for
    `idempotency_days`, but never shorter than the event.
    """

    host: str = "127.0.0.1"
    port: int = 8288
    data_dir: Path = Path("data")
    database_url: str = ""
    master_key: str | None = None
    api_key: str | None = None
    url: str = ""
    public_url: str = ""
    open_api: bool = False
    app: str = "local"
    workers: int = 1
    concurrency: int = 100
    functions: tuple[Path, ...] = ()
    providers: tuple[Path, ...] = ()
    max_body_bytes: int = 26_214_400
    max_step_bytes: int = 1_048_576
    max_run_bytes: int = 33_554_432
    lease_seconds: float = 15.0
    shutdown_seconds: float = 20.0
    api_calls_per_minute: int = 60_000
    quarantine_bytes: int = 52_428_800
    quarantine_per_minute: int = 600
    retention_days: float = 30.0
    retention_failed_days: float = 90.0
    retention_requests_days: float = 7.0
    idempotency_days: float = 90.0
    sources: tuple[SourceSettings, ...] = ()

    @property
    def resolved_database_url(self) -> str:
        """The database: as set, or SQLite in the data directory."""
        return self.database_url or f"sqlite:///{self.data_dir.absolute() / 'tidegate.db'}"

    @property
    def inbound_url(self) -> str:
        """What third parties reach the gateway by, as far as it was told."""
        return (self.public_url or self.base_url).rstrip("/")

    @property
    def base_url(self) -> str:
        """Where the gateway is reached by the CLI."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host  # noqa: S104
        return self.url or f"http://{host}:{self.port}"


def load(environ: Mapping[str, str] | None = None, directory: Path | None = None) -> Settings:
    """The settings from `environ` and the directory's `tidegate.toml`. Raises SettingsError, naming the setting."""
    environ = os.environ if environ is None else environ
    path = (directory or Path.cwd()) / "tidegate.toml"
    table = _toml(path)
    sources = _toml_sources(table.pop("sources", {}), path.name)
    taken = {source.name for source in sources} | {"api"}
    for source in _environment_sources(environ):
        if source.name in taken:
            raise SettingsError(f"source {source.name!r} ({source.origin}) is taken, by {path.name} or the API; rename it")
        sources.append(source)
    fields = Settings.__dataclass_fields__
    _refuse_unknown([name for name in environ if name.startswith("TIDEGATE_")], _variables(), "")
    _refuse_unknown(list(table), [name for name in fields if name != "sources"], f" in {path.name}")
    values: dict[str, Any] = {}
    for name in fields:
        variable = f"TIDEGATE_{name.upper()}"
        if name != "sources" and environ.get(variable):
            values[name] = _typed(name, environ[variable], variable)
        elif name in table:
            values[name] = _typed(name, table[name], f"{name} in {path.name}")
    settings = Settings(**values, sources=tuple(sources))
    _check(settings)
    return settings


def _variables() -> list[str]:
    names = [f"TIDEGATE_{name.upper()}" for name in Settings.__dataclass_fields__ if name != "sources"]
    return [*names, *INTERNAL]


def _refuse_unknown(given: Sequence[str], known: Sequence[str], where: str) -> None:
    for name in sorted(given):
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise SettingsError(f"there is no setting {name}{where}{f'; did you mean {near[0]}?' if near else ''}")


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text()) if path.exists() else {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path.name} cannot be read: {error}") from None


def _typed(name: str, value: Any, where: str) -> Any:
    default = getattr(Settings, name)
    try:
        if name in ("functions", "providers"):
            parts: Sequence[str] = value.split(os.pathsep) if isinstance(value, str) else value
            return tuple(Path(part) for part in parts if part)
        if isinstance(default, Path):
            return Path(value)
        if isinstance(default, bool):
            return {"0": False, "1": True, "false": False, "true": True}[str(value).lower()]
        if isinstance(default, int | float):
            return type(default)(value)
        if not isinstance(value, str):
            raise TypeError
        return value
    except (KeyError, TypeError, ValueError):
        raise SettingsError(f"{where} is not a valid value: {value!r}") from None


def _check(settings: Settings) -> None:
    bounds = {
        "port": (0, 65535),
        "workers": (0, 64),
        "concurrency": (1, 10_000),
        "max_body_bytes": (1, 1 << 30),
        "max_step_bytes": (1, 1 << 30),
        "max_run_bytes": (1, 1 << 34),
        "lease_seconds": (0.2, 3600),
        "shutdown_seconds": (0, 3600),
        "api_calls_per_minute": (1, 100_000_000),
        "quarantine_bytes": (0, 1 << 40),
        "quarantine_per_minute": (0, 1_000_000),
        **dict.fromkeys(DAYS, (0, MOST_DAYS)),
    }
    for name, (low, high) in bounds.items():
        if not low <= getattr(settings, name) <= high:
            raise SettingsError(f"TIDEGATE_{name.upper()} must lie between {low} and {high}, not {getattr(settings, name)}")
    if not settings.resolved_database_url.startswith(("sqlite:///", "postgresql://", "postgres://")):
        raise SettingsError("TIDEGATE_DATABASE_URL must begin with postgresql:// or sqlite:///")
    if not _NAME.fullmatch(settings.app):
        raise SettingsError(f"TIDEGATE_APP is a name of lower-case letters, digits and `-`, not {settings.app!r}")
    if settings.open_api and settings.host not in ("127.0.0.1", "localhost", "::1"):
        raise SettingsError("without API keys Tidegate listens on loopback only; leave out the host, or use `tidegate serve`")
    if settings.api_key is not None and len(settings.api_key) < 16:
        raise SettingsError("TIDEGATE_API_KEY must have at least 16 characters")
    _check_retention(settings)


def _check_retention(settings: Settings) -> None:
    for name in DAYS:
        if 0 < getattr(settings, name) < 1 / 86_400:
            raise SettingsError(f"TIDEGATE_{name.upper()} must be a second (1/86400) at least, or 0 for ever")
    of_events = [days for days in (settings.retention_days, settings.retention_failed_days) if days]
    if settings.idempotency_days and of_events and settings.idempotency_days < min(of_events):
        raise SettingsError(
            f"TIDEGATE_IDEMPOTENCY_DAYS ({settings.idempotency_days:g}) must not be less than events are kept"
            f" ({min(of_events):g} days): a delivery that came again would be a second event"
        )


def _environment_sources(environ: Mapping[str, str]) -> list[SourceSettings]:
    found: list[SourceSettings] = []
    for variable, value in sorted(environ.items()):
        match = _SECRET.fullmatch(variable)
        if match:
            name = match[1].lower().replace("_", "-")
            secrets = tuple(part.strip() for part in value.split(",") if part.strip())
            found.append(SourceSettings(name=name, provider=name, secrets=secrets, origin=variable))
    return found


def _toml_sources(table: Any, file: str) -> list[SourceSettings]:
    found: list[SourceSettings] = []
    for name, raw in cast(dict[str, Any], table).items():
        where = f"[sources.{name}] in {file}"
        if not isinstance(raw, dict) or not _NAME.fullmatch(name) or name == "api":
            raise SettingsError(f"{where}: a source is a table under a name of lower-case letters, digits and `-`")
        options = cast(dict[str, Any], raw)
        unknown = options.keys() - {"provider", "secret", "secrets"}
        if unknown:
            raise SettingsError(f"{where} has an unknown option: {sorted(unknown)[0]}")
        provider, secrets = str(options.get("provider", name)), _secrets(options, where)
        found.append(SourceSettings(name=name, provider=provider, secrets=secrets, origin=file))
    return found


def _secrets(options: dict[str, Any], where: str) -> tuple[str, ...]:
    given: Any = options.get("secrets", options.get("secret", []))
    texts: Any = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in cast(list[Any], texts)):
        raise SettingsError(f"{where}: `secret` is a text, and `secrets` a list of texts, the newest first")
    return tuple(text.strip() for text in cast(list[str], texts) if text.strip())
