"""How a third party signs, as data, and the one place that checks it. Total: any bytes in, a verdict out."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, Protocol, get_args

import msgspec

from gateway.errors import DeclarationError

MAX_SIGNATURES = 20
MAX_SIGNATURE_HEADER = 4096

Reason = Literal[
    "no_secret",
    "missing_header",
    "doubled_header",
    "malformed_header",
    "no_match",
    "timestamp_too_old",
    "timestamp_in_future",
    "provider_error",
]

REMEDIES: Mapping[Reason, str] = {
    "no_secret": "The source has no usable secret.",
    "missing_header": "The signature header is missing: is this sender really the provider, and is signing switched on?",
    "doubled_header": "The signature header came more than once.",
    "malformed_header": "The signature header could not be read.",
    "no_match": "No live secret gives this signature: a wrong secret, a body altered on the way, or another endpoint's key.",
    "timestamp_too_old": "The signature is right but too old: a clock that is wrong, or a delivery that was replayed.",
    "timestamp_in_future": "The signature is right but from the future: a clock that is wrong.",
    "provider_error": "The provider's own code has failed: mend it, and reprocess the request.",
}

Algorithm = Literal["sha1", "sha256", "sha384", "sha512"]
Encoding = Literal["hex", "base64"]
SecretEncoding = Literal["text", "hex", "base64"]
Unit = Literal["s", "ms"]
Headers = Sequence[tuple[str, str]]


class Inbound(msgspec.Struct, frozen=True):
    """One HTTP request as it came in: header names in lower case, header values as latin-1 text, the exact body."""

    method: str
    url: str
    headers: Headers
    body: bytes

    def header(self, name: str) -> str | None:
        """The first value of a header (name in lower case), or None."""
        return next((value for key, value in self.headers if key == name), None)

    def all(self, name: str) -> list[str]:
        """Every value of a header (name in lower case)."""
        return [value for key, value in self.headers if key == name]


class Verified(msgspec.Struct, frozen=True):
    """The signature holds. `secret_index`: which of the secrets matched."""

    secret_index: int


class Rejected(msgspec.Struct, frozen=True):
    """The signature does not hold; `reason` is for the operator only, and so is `detail`, a sentence."""

    reason: Reason
    detail: str = ""

    @property
    def remedy(self) -> str:
        """In words, what that means and what to look at."""
        return f"{REMEDIES[self.reason]} {self.detail}".strip()


Verdict = Verified | Rejected


class Scheme(Protocol):
    """Verifies and signs. Both are pure; `verify` never raises, whatever a sender sends.

    It may have `fault(secret)`, which says why a text cannot be one of this third party's secrets, or None when it can;
    and `describe()`, the scheme as JSON.
    """

    def verify(self, request: Inbound, secrets: Sequence[str], now: int) -> Verdict:
        """The verdict at `now` (Unix seconds); every signature is tried with every secret in constant time."""
        ...

    def sign(self, body: bytes, secret: str, now: int, headers: Headers = ()) -> list[tuple[str, str]]:
        """The headers the third party would add to `headers` with `body` at `now` (Unix seconds)."""
        ...


@dataclass(frozen=True, kw_only=True)
class Items:
    """The syntax of a signature header that lists pairs, such as Stripe's `t=…,v1=…,v1=…`."""

    timestamp: str
    signature: str
    separator: str = ","

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise DeclarationError(f"Items: `{name}` is a text, not {getattr(self, name)!r}")


@dataclass(frozen=True, kw_only=True)
class Hmac:
    """A keyed hash over the body, or over a template of timestamp, headers and body.

    `header`: where the signature is. `content`: what is signed, a template of `{body}`, `{timestamp}` and `{header:NAME}`.
    The header's value is one signature after `prefix`; or several of them with `separator` between; or, with `items`, a
    list of `key=value` pairs. The timestamp is one of the items, or in `timestamp_header`, in seconds or milliseconds
    (`timestamp_unit`), and may lie `tolerance` seconds on both sides of now. `secret_prefix` and `secret_encoding`: how the
    text that the third party shows becomes the key.
    """

    header: str
    algorithm: Algorithm = "sha256"
    encoding: Encoding = "hex"
    content: str = "{body}"
    prefix: str = ""
    separator: str = ""
    items: Items | None = None
    timestamp_header: str = ""
    timestamp_unit: Unit = "s"
    tolerance: int = 300
    secret_prefix: str = ""
    secret_encoding: SecretEncoding = "text"  # noqa: S105
    _name: str = field(init=False, repr=False)
    _parts: tuple[bytes | str, ...] = field(init=False, repr=False)
    _size: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._check()
        parts = [part.encode() if i % 2 == 0 else part for i, part in enumerate(re.split(r"\{([^{}]*)\}", self.content))]
        found = {
            "_name": self.header.lower(),
            "_parts": tuple(part for part in parts if part),
            "_size": hashlib.new(self.algorithm).digest_size,
        }
        for name, value in found.items():
            object.__setattr__(self, name, value)

    def _check(self) -> None:
        for name in ("header", "content", "prefix", "separator", "timestamp_header", "secret_prefix"):
            if not isinstance(getattr(self, name), str) or (name == "header" and not self.header):
                raise DeclarationError(f"{self.header}: `{name}` is a text, not {getattr(self, name)!r}")
        if isinstance(self.tolerance, bool) or not isinstance(self.tolerance, int) or self.tolerance < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise DeclarationError(f"{self.header}: `tolerance` is a whole number of seconds from 1, not {self.tolerance!r}")
        if self.items is not None and not isinstance(self.items, Items):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise DeclarationError(f"{self.header}: `items` is Items(timestamp=…, signature=…), not {self.items!r}")
        choices = {"algorithm": Algorithm, "encoding": Encoding, "timestamp_unit": Unit, "secret_encoding": SecretEncoding}
        for name, kind in choices.items():
            if getattr(self, name) not in get_args(kind):
                raise DeclarationError(f"{self.header}: `{name}` is one of {', '.join(get_args(kind))}, not {getattr(self, name)!r}")
        fields = re.findall(r"\{([^{}]*)\}", self.content)
        unknown = [name for name in fields if name not in ("body", "timestamp") and not name.startswith("header:")]
        if unknown:
            raise DeclarationError(f"{self.header}: `content` takes {{body}}, {{timestamp}} and {{header:NAME}}, not {{{unknown[0]}}}")
        if fields.count("body") != 1:
            raise DeclarationError(f"{self.header}: `content` names {{body}} once, not as in {self.content!r}")
        if ("timestamp" in fields) != (self.items is not None or bool(self.timestamp_header)):
            raise DeclarationError(f"{self.header}: a `{{timestamp}}` in `content` goes with `items` or `timestamp_header`")

    def verify(self, request: Inbound, secrets: Sequence[str], now: int) -> Verdict:
        values = request.all(self._name)
        if len(values) != 1:
            return Rejected("doubled_header" if values else "missing_header", f"It is {self.header}.")
        read = self._read(values[0], request)
        if isinstance(read, Rejected):
            return read
        timestamp, signatures = read
        content = self._content(request, timestamp)
        if isinstance(content, Rejected):
            return content
        matched: int | None = None
        usable = False
        for index, secret in enumerate(secrets):
            key = self._key(secret)
            if key is None:
                continue
            usable = True
            keyed = _keyed(key, self.algorithm).copy()
            keyed.update(content)
            expected = keyed.digest()
            for signature in signatures:
                if hmac.compare_digest(expected, signature) and matched is None:
                    matched = index
        if matched is None:
            return Rejected("no_match" if usable else "no_secret")
        return self._in_time(timestamp, now) or Verified(matched)

    def sign(self, body: bytes, secret: str, now: int, headers: Headers = ()) -> list[tuple[str, str]]:
        timestamp = str(now if self.timestamp_unit == "s" else now * 1000) if self.items or self.timestamp_header else ""
        inbound = Inbound("POST", "", [(name.lower(), value) for name, value in headers], body)
        content = self._content(inbound, timestamp)
        if isinstance(content, Rejected):
            raise DeclarationError(f"the sample lacks a header that is signed: {content.detail}")
        digest = hmac.digest(self._key(secret) or b"", content, self.algorithm)
        text = digest.hex() if self.encoding == "hex" else base64.b64encode(digest).decode()
        signed = [(self.timestamp_header, timestamp)] if self.timestamp_header else []
        if self.items is None:
            return [*signed, (self.header, self.prefix + text)]
        items = self.items
        return [*signed, (self.header, f"{items.timestamp}={timestamp}{items.separator}{items.signature}={text}")]

    def fault(self, secret: str) -> str | None:
        """Why a text cannot be one of the secrets; None when it can."""
        if not secret.strip():
            return "it is empty"
        if self._key(secret) is None:
            return (
                f"after {self.secret_prefix!r} it is not {self.secret_encoding}"
                if self.secret_prefix
                else f"it is not {self.secret_encoding}"
            )
        return None

    def describe(self) -> dict[str, Any]:
        """The scheme as data, for people and clients."""
        names = [name for name in self.__dataclass_fields__ if not name.startswith("_") and name != "items"]
        shown = {name: getattr(self, name) for name in names if getattr(self, name) != ""}
        return {"kind": "hmac", "shape": self.shape, **shown}

    @property
    def shape(self) -> str:
        """What the header looks like."""
        text = f"<{self._size * 2} hex digits>" if self.encoding == "hex" else "<base64>"
        if self.items is not None:
            return f"{self.items.timestamp}=<seconds>{self.items.separator}{self.items.signature}={text}"
        return self.prefix + text

    def _content(self, request: Inbound, timestamp: str) -> bytes | Rejected:
        if self._parts == ("body",):
            return request.body
        found: list[bytes] = []
        for part in self._parts:
            if isinstance(part, bytes):
                found.append(part)
            elif part == "body":
                found.append(request.body)
            elif part == "timestamp":
                found.append(timestamp.encode())
            else:
                name = part.removeprefix("header:")
                values = request.all(name.lower())
                if len(values) != 1:
                    return Rejected("doubled_header" if values else "missing_header", f"It is {name}, which is signed.")
                found.append(values[0].encode("latin-1", "replace"))
        return b"".join(found)

    def _key(self, secret: str) -> bytes | None:
        text = secret.strip().removeprefix(self.secret_prefix)
        if not text:
            return None
        if self.secret_encoding == "text":  # noqa: S105
            return text.encode("utf-8", "surrogatepass")
        try:
            raw = bytes.fromhex(text) if self.secret_encoding == "hex" else base64.b64decode(text + "=" * (-len(text) % 4), validate=True)  # noqa: S105
        except (ValueError, binascii.Error):
            return None
        return raw or None

    def _read(self, value: str, request: Inbound) -> tuple[str, list[bytes]] | Rejected:
        """Timestamp and signatures of a request, or why they cannot be read."""
        if self.items is not None:
            found = self._items(value, self.items)
            return found or Rejected("malformed_header", f"It should look like {self.shape}.")
        texts = value.split(self.separator) if self.separator else [value]
        if len(value) > MAX_SIGNATURE_HEADER or len(texts) > MAX_SIGNATURES:
            return Rejected("malformed_header", "It is too long.")
        length = len(self.prefix)
        signatures = [found for text in texts if text.startswith(self.prefix) and (found := self._decode(text[length:]))]
        if not signatures:
            return Rejected("malformed_header", f"It should look like {self.shape}.")
        if not self.timestamp_header:
            return "", signatures
        times = request.all(self.timestamp_header.lower())
        if len(times) != 1:
            return Rejected("doubled_header" if times else "missing_header", f"It is {self.timestamp_header}.")
        return (times[0], signatures) if _is_time(times[0]) else Rejected("malformed_header", f"It is {self.timestamp_header}.")

    def _items(self, value: str, items: Items) -> tuple[str, list[bytes]] | None:
        if not 0 < len(value) <= MAX_SIGNATURE_HEADER:
            return None
        timestamps: list[str] = []
        texts: list[str] = []
        for part in value.split(items.separator):
            key, _, text = part.strip().partition("=")
            if key == items.timestamp:
                timestamps.append(text)
            elif key == items.signature:
                texts.append(text)
        if len(timestamps) != 1 or not _is_time(timestamps[0]):
            return None
        signatures = [found for found in map(self._decode, texts) if found]
        return (timestamps[0], signatures) if signatures and len(texts) <= MAX_SIGNATURES else None

    def _in_time(self, timestamp: str, now: int) -> Rejected | None:
        """Checked after the signature, so that "too old" is only said of what the provider really signed."""
        if not timestamp:
            return None
        age = now - int(timestamp) // (1 if self.timestamp_unit == "s" else 1000)
        if age > self.tolerance:
            return Rejected("timestamp_too_old", f"It was signed {age} s before it came; {self.tolerance} s are allowed.")
        if -age > self.tolerance:
            return Rejected("timestamp_in_future", f"It was signed {-age} s after it came; {self.tolerance} s are allowed.")
        return None

    def _decode(self, text: str) -> bytes | None:
        try:
            raw = binascii.unhexlify(text) if self.encoding == "hex" else base64.b64decode(text, validate=True)
        except (ValueError, binascii.Error):
            return None
        return raw if len(raw) == self._size else None


@lru_cache(maxsize=256)
def _keyed(key: bytes, algorithm: Algorithm) -> hmac.HMAC:
    """An HMAC that has begun: to begin one takes as long as to hash a body of a kilobyte."""
    return hmac.new(key, digestmod=algorithm)


def _is_time(text: str) -> bool:
    """Python's int() takes signs, underscores and Unicode digits; a Unix time is ASCII digits."""
    return text.isascii() and text.isdigit() and len(text) <= 16


def fault_of(scheme: Scheme, secret: str) -> str | None:
    """Why a text cannot be a secret under this scheme; None when it can, as far as the scheme knows."""
    if not secret.strip():
        return "it is empty"
    known = getattr(scheme, "fault", None)
    return known(secret) if known is not None else None
