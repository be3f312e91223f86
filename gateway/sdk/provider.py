"""A provider: what one third party's webhooks look like, as data, with two methods to override where data cannot say it."""

from __future__ import annotations

import difflib
import hashlib
import inspect
import re
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypedDict, cast

import msgspec

from gateway import codec
from gateway.clock import NEVER, SECOND, Micros
from gateway.core.names import RESERVED
from gateway.errors import DeclarationError, TidegateError
from gateway.sdk.event import Event
from gateway.sdk.scheme import REMEDIES, Inbound, Rejected, Scheme, Verdict, Verified

UNKNOWN = "unknown"
MAX_TYPE = 200

_TEXTS = ("title", "docs", "setup", "type_at", "type_header", "id_at", "occurred_at", "data_at")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,49}")
_UNSAFE = re.compile(r"[^\w.:/-]", re.ASCII)


class Parsed(msgspec.Struct, frozen=True, kw_only=True):
    """What a verified request says.

    `type`: the event's name behind `provider/`. `key`: what makes it the same delivery when it comes again.
    `data_path`: dotted path of the event's data in the body; `data`: the data itself where the body does not hold it as it is.
    """

    type: str
    key: str
    occurred_at: Micros | None = None
    data_path: str = ""
    data: bytes | None = None
    attributes: Mapping[str, Any] = {}


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A realistic delivery for `tidegate trigger`: its body and the headers beside the signature."""

    body: bytes
    headers: Sequence[tuple[str, str]] = ()


class Provider:
    """One third party. Set the class attributes; override `verify`, `parse` or `sample` where they cannot say it.

    `name`: lower case, the first part of every event name and of `NAME_WEBHOOK_SECRET`. `scheme`: how it signs.
    `type_at`, `id_at`, `occurred_at` (Unix seconds), `data_at`: dotted paths of members of the JSON body; `attributes`:
    members to keep beside the data. `type_header`: where the type is a header instead. `events`: typed event classes.
    `docs`: the third party's page. `setup`: what to do there. `samples`: type -> a function that makes the body of a fresh
    sample, with an id of its own. Raises DeclarationError when one of them is wrong.
    """

    name: str = ""
    title: str = ""
    docs: str = ""
    setup: str = ""
    scheme: Scheme
    type_at: str = ""
    type_header: str = ""
    id_at: str = ""
    occurred_at: str = ""
    data_at: str = ""
    attributes: Sequence[str] = ()
    events: Sequence[type[Event[Any]]] = ()
    samples: ClassVar[Mapping[str, Callable[[], Mapping[str, Any]]]] = {}

    def __init__(self) -> None:
        _check(type(self))
        paths = [*filter(None, [self.type_at, self.id_at, self.occurred_at]), *self.attributes]
        self._members = {path.partition(".")[0] for path in paths}
        self._envelope = msgspec.json.Decoder(_some_of(self._members))

    def verify(self, request: Inbound, secrets: Sequence[str], now: int) -> Verdict:
        """Whether one of `secrets` signed this request, at `now` (Unix seconds). Never raises."""
        return self.scheme.verify(request, secrets, now)

    def parse(self, request: Inbound) -> Parsed:
        """What a verified request says. Raises ValueError when it says nothing that can be read."""
        body = self.envelope(request.body)
        type_ = request.header(self.type_header.lower()) if self.type_header else at(body, self.type_at)
        id_ = at(body, self.id_at)
        seconds = at(body, self.occurred_at)
        return Parsed(
            type=type_ if isinstance(type_, str) and type_ else UNKNOWN,
            key=str(id_) if isinstance(id_, str | int) and id_ != "" else body_key(request.body),
            occurred_at=seconds * SECOND if isinstance(seconds, int) and 0 < seconds < 1 << 38 else None,
            data_path=self.data_at,
            attributes={name: value for name in self.attributes if (value := at(body, name)) is not None},
        )

    def envelope(self, body: bytes) -> dict[str, Any]:
        """Those declared members that the JSON object `body` has. Raises ValueError when it is none."""
        try:
            return self._envelope.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            whole = codec.loads(body)
            if not isinstance(whole, dict):
                raise ValueError("the body is not a JSON object") from None
            return {name: value for name, value in cast(dict[str, Any], whole).items() if name in self._members}

    def sample(self, type_: str) -> Sample:
        """A fresh, realistic delivery of one type, unsigned. Raises KeyError for a type without a sample, and DeclarationError
        when its sample cannot be made."""
        make = self.samples[type_]
        try:
            body = codec.dumps(make())
        except Exception as error:
            raise DeclarationError(f"{_file(self)}: the sample {type_!r} cannot be made: {type(error).__name__}: {error}") from error
        return Sample(body=body, headers=[("Content-Type", "application/json")])


def _some_of(members: set[str]) -> type[dict[str, Any]]:
    """The type of a JSON object of which nothing but these members is read, where they are there."""
    return cast(Any, TypedDict)("Envelope", dict.fromkeys(members, Any), total=False)


def at(body: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path; None where there is none."""
    if "." not in path:
        return body.get(path)
    found: Any = body
    for name in path.split("."):
        found = cast(dict[str, Any], found).get(name) if isinstance(found, dict) else None
    return found


def _check(kind: type[Provider]) -> None:
    """Raises DeclarationError, naming what is wrong."""
    name = kind.name
    if name == "":
        raise DeclarationError('declare its `name`, such as `name = "acme"`: the first part of every event name')
    if not isinstance(name, str) or not _NAME.fullmatch(name):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise DeclarationError(f"provider name {name!r}: use lower-case letters, digits and `-`")
    if f"{name}/" == RESERVED:
        raise DeclarationError(f"provider name {name!r}: event names that begin with `{RESERVED}` are Tidegate's own; choose another")
    known = {*Provider.__annotations__, "events", "samples"}
    for given, value in vars(kind).items():
        if (
            given in known
            or given.startswith("_")
            or not given.islower()
            or callable(value)
            or isinstance(value, property | classmethod | staticmethod)
        ):
            continue
        near = difflib.get_close_matches(given, known, 1)
        raise DeclarationError(f"provider {name!r} has no `{given}`{f'; did you mean `{near[0]}`?' if near else ''}")
    for member in _TEXTS:
        if not isinstance(getattr(kind, member), str):
            raise DeclarationError(f"provider {name!r}: `{member}` is a text, not {getattr(kind, member)!r}")
    if isinstance(kind.attributes, str) or not all(isinstance(member, str) for member in kind.attributes):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise DeclarationError(f"provider {name!r}: `attributes` is a list of member names, not {kind.attributes!r}")
    scheme = getattr(kind, "scheme", None)
    if scheme is None:
        raise DeclarationError(f"provider {name!r} has no `scheme`: without one nothing can be verified")
    if not all(callable(getattr(scheme, verb, None)) for verb in ("verify", "sign")):
        raise DeclarationError(f"provider {name!r}: `scheme` is an Hmac, or has `verify` and `sign`; not {scheme!r}")
    if not (kind.type_at or kind.type_header or kind.parse is not Provider.parse):
        raise DeclarationError(f"provider {name!r}: set `type_at` or `type_header`, or override `parse`")
    if not isinstance(kind.samples, Mapping) or not all(callable(made) for made in kind.samples.values()):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise DeclarationError(f"provider {name!r}: `samples` is type -> a function that makes a body; put `lambda:` before it")


def verify(provider: Provider, request: Inbound, secrets: Sequence[str], now: int) -> Verdict:
    """`provider.verify`, made total: a provider that raises rejects as `provider_error`, and the detail says where."""
    try:
        verdict = provider.verify(request, secrets, now)
        if _is_verdict(verdict, len(secrets)):
            return verdict
    except (Exception, SystemExit) as error:  # a gateway is not ended by what somebody sends
        return Rejected("provider_error", f"It is {told(provider, error)}.")
    return Rejected(
        "provider_error",
        f"Its `verify` gave neither Verified, with the place of a secret, nor Rejected, with one of the reasons: {_file(provider)}.",
    )


def _is_verdict(given: Any, secrets: int) -> bool:
    """Whether a provider's `verify` has given what it promises."""
    if isinstance(given, Verified):
        return given.secret_index in range(secrets)
    if not isinstance(given, Rejected):
        return False
    reason, detail = cast(Any, given).reason, cast(Any, given).detail
    return isinstance(reason, str) and reason in REMEDIES and isinstance(detail, str)


def read(provider: Provider, request: Inbound, failed: Callable[[BaseException], None] | None = None) -> Parsed:
    """`provider.parse`, made total: what cannot be read is an event of type `unknown` under the body's hash.

    `failed` is told why. A provider's parser is somebody's plugin, and what it reads was signed: it must never cost a webhook.
    """
    try:
        parsed = provider.parse(request)
        if not _is_whole(parsed):
            raise DeclarationError(
                "`parse` gives Parsed, with a `type` and a `key` that are texts, a key that is not empty, `occurred_at` in"
                f" microseconds or None, `data` as bytes or None, and `attributes` as a dict: {_file(provider)}"
            )
    except (Exception, SystemExit) as error:
        if failed is not None:
            failed(error)
        return Parsed(type=UNKNOWN, key=body_key(request.body))
    return parsed


def _is_whole(found: Any) -> bool:
    """Whether a provider's parser has given what it promises."""
    if not isinstance(found, Parsed):
        return False
    given: Any = found
    if not (isinstance(given.type, str) and isinstance(given.key, str) and given.key):
        return False
    if not (isinstance(given.data_path, str) and given.data_path.isprintable()):
        return False
    at, data = given.occurred_at, given.data
    if not (at is None or (isinstance(at, int) and not isinstance(at, bool) and 0 < at < NEVER)) or not (
        data is None or isinstance(data, bytes)
    ):
        return False
    return isinstance(given.attributes, Mapping)


def told(provider: Provider, error: BaseException) -> str:
    """What a provider raised, and where in its file; of others' errors without the message, which may quote the payload."""
    if isinstance(error, TidegateError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename == inspect.getfile(type(provider))]
    place = [f"in {Path(frame.filename).name}, line {frame.lineno}" for frame in (own or frames)[-1:]]
    return " ".join([type(error).__name__, *place])


def _file(provider: Provider) -> str:
    return f"{type(provider).__module__.replace('.', '/')}.py"


def event_name(provider: str, type_: str) -> str:
    """`provider/type`, with characters that no event name has replaced by `_`."""
    return f"{provider}/{_UNSAFE.sub('_', type_)[:MAX_TYPE]}"


def body_key(body: bytes) -> str:
    """The idempotency key where the third party gives none: the hash of the body."""
    return "sha256:" + hashlib.sha256(body).hexdigest()
