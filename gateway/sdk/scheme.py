"""How a third party signs, as data, and the one place that checks it. Total: any bytes in, a verdict out."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

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
]

REMEDIES: Mapping[Reason, str] = {
    "no_secret": "The source has no usable secret.",
    "missing_header": "The signature header is missing: is this sender really the provider, and is signing switched on?",
    "doubled_header": "The signature header came more than once.",
    "malformed_header": "The signature header could not be read.",
    "no_match": "No live secret gives this signature: a wrong secret, a body altered on the way, or another endpoint's key.",
    "timestamp_too_old": "The signature is right but too old: a clock that is wrong, or a delivery that was replayed.",
    "timestamp_in_future": "The signature is right but from the future: a clock that is wrong.",
}


class Inbound(msgspec.Struct, frozen=True):
    """One HTTP request as it came in: header names in lower case, header values as latin-1 text, the exact body."""

    method: str
    url: str
    headers: Sequence[tuple[str, str]]
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
        """In a sentence, what that means and what to look at."""
        return REMEDIES[self.reason]


Verdict = Verified | Rejected


class Scheme(Protocol):
    """Verifies and signs. Both are pure; `verify` never raises, whatever a sender sends."""

    def verify(self, request: Inbound, secrets: Sequence[str], now: int) -> Verdict:
        """The verdict at `now` (Unix seconds); every signature is tried with every secret in constant time."""
        ...

    def sign(self, body: bytes, secret: str, now: int) -> list[tuple[str, str]]:
        """The headers the third party would send with `body` at `now` (Unix seconds)."""
        ...


@dataclass(frozen=True, kw_only=True)
class Hmac:
    """A keyed hash over the body, or over a template of timestamp and body.

    `content`: a template of `{timestamp}` and `{body}`, joined as written. `items`: for headers that list `key=value`
    pairs, the separator and the keys of timestamp and signature; without it the header is one signature after `prefix`.
    `tolerance`: seconds on both sides of now that a signed timestamp may lie.
    """

    header: str
    algorithm: Literal["sha1", "sha256", "sha512"] = "sha256"
    encoding: Literal["hex", "base64"] = "hex"
    content: str = "{body}"
    prefix: str = ""
    items: Items | None = None
    tolerance: int = 300
    _name: str = field(init=False, repr=False)
    _before: bytes = field(init=False, repr=False)
    _after: bytes = field(init=False, repr=False)
    _size: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.content.count("{body}") != 1:
            raise DeclarationError(f"the signed content of {self.header} names {{body}} once, not as in {self.content!r}")
        if ("{timestamp}" in self.content) != (self.items is not None):
            raise DeclarationError(f"{self.header}: `{{timestamp}}` in the content and `items` go together")
        before, after = self.content.encode().split(b"{body}")
        found = {"_name": self.header.lower(), "_before": before, "_after": after, "_size": hashlib.new(self.algorithm).digest_size}
        for name, value in found.items():
            object.__setattr__(self, name, value)

    def verify(self, request: Inbound, secrets: Sequence[str], now: int) -> Verdict:
        values = request.all(self._name)
        if len(values) != 1:
            return Rejected("doubled_header" if values else "missing_header")
        read = self._read(values[0])
        if read is None:
            return Rejected("malformed_header")
        timestamp, signatures = read
        matched: int | None = None
        usable = False
        for index, secret in enumerate(secrets):
            if not secret.strip():
                continue
            usable = True
            expected = self._digest(request.body, timestamp, secret)
            for signature in signatures:
                if hmac.compare_digest(expected, signature) and matched is None:
                    matched = index
        if matched is None:
            return Rejected("no_match" if usable else "no_secret")
        # Checked after the signature, so that "too old" is only said of what the provider really signed.
        age = now - int(timestamp) if timestamp else 0
        if age > self.tolerance:
            return Rejected("timestamp_too_old", f"It was signed {age} s before it came; {self.tolerance} s are allowed.")
        if -age > self.tolerance:
            return Rejected("timestamp_in_future", f"It was signed {-age} s after it came; {self.tolerance} s are allowed.")
        return Verified(matched)

    def sign(self, body: bytes, secret: str, now: int) -> list[tuple[str, str]]:
        timestamp = str(now) if self.items else ""
        digest = self._digest(body, timestamp, secret)
        text = digest.hex() if self.encoding == "hex" else base64.b64encode(digest).decode()
        if self.items is None:
            return [(self.header, self.prefix + text)]
        items = self.items
        return [(self.header, f"{items.timestamp}={timestamp}{items.separator}{items.signature}={text}")]

    def _digest(self, body: bytes, timestamp: str, secret: str) -> bytes:
        before = self._before.replace(b"{timestamp}", timestamp.encode())
        after = self._after.replace(b"{timestamp}", timestamp.encode())
        return hmac.digest(secret.encode("utf-8", "surrogatepass"), before + body + after, self.algorithm)

    def _read(self, value: str) -> tuple[str, list[bytes]] | None:
        """Timestamp and signatures of a header value, or None when it cannot be read."""
        if not 0 < len(value) <= MAX_SIGNATURE_HEADER:
            return None
        if self.items is None:
            found = self._decode(value[len(self.prefix) :]) if value.startswith(self.prefix) else None
            return ("", [found]) if found else None
        timestamps: list[str] = []
        texts: list[str] = []
        for part in value.split(self.items.separator):
            key, _, text = part.strip().partition("=")
            if key == self.items.timestamp:
                timestamps.append(text)
            elif key == self.items.signature:
                texts.append(text)
        # Python's int() takes signs, underscores and Unicode digits; a Unix time is ASCII digits.
        if len(timestamps) != 1 or not (timestamps[0].isascii() and timestamps[0].isdigit()) or len(timestamps[0]) > 12:
            return None
        signatures = [found for found in map(self._decode, texts) if found]
        return (timestamps[0], signatures) if signatures and len(texts) <= MAX_SIGNATURES else None

    def _decode(self, text: str) -> bytes | None:
        try:
            raw = bytes.fromhex(text) if self.encoding == "hex" else base64.b64decode(text, validate=True)
        except (ValueError, binascii.Error):
            return None
        return raw if len(raw) == self._size else None


@dataclass(frozen=True, kw_only=True)
class Items:
    """The syntax of a signature header that lists pairs, such as Stripe's `t=…,v1=…,v1=…`."""

    timestamp: str
    signature: str
    separator: str = ","
