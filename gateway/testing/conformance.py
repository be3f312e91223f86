"""What every provider must hold: its samples verify and read well, and nothing else gets in, whatever bytes come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from gateway import codec
from gateway.sdk.provider import Provider, Sample, at, read
from gateway.sdk.scheme import Inbound, Verified

SECRET = "conformance-secret-not-a-real-one"  # noqa: S105
NOW = 1_790_000_000
DAY = 86_400

Pairs = list[tuple[str, str]]

GARBAGE = [
    "",
    " ",
    "=",
    ",",
    "v1",
    "t=,v1=",
    "t=1,v1=zz",
    "\xff\xfe",
    "\0",
    "sha256=",
    "sha256=ß",
    "a" * 100_000,
    "t=٣,v1=00",
    "😀",
]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at."""

    name: str
    ok: bool
    detail: str = ""


def examine(provider: Provider) -> list[Check]:
    """Every check over every sample of a provider."""
    if not provider.samples:
        return [Check("has samples", False, "declare `samples`, so that `tidegate trigger` and these checks have something to send")]
    return [check for type_ in sorted(provider.samples) for check in _sample_checks(provider, type_)]


def _sample_checks(provider: Provider, type_: str) -> Iterator[Check]:
    sample = provider.sample(type_)
    signed = _signed(provider, sample, SECRET, NOW)
    parsed = read(provider, _inbound(sample, signed, sample.body))
    yield Check(f"{type_}: its type is read", parsed.type == type_, f"got {parsed.type!r}" if parsed.type != type_ else "")
    again = read(provider, _inbound(sample, signed, sample.body))
    yield Check(f"{type_}: its idempotency key is stable and not empty", bool(parsed.key) and parsed.key == again.key)
    if parsed.type == type_ and type(provider).parse is Provider.parse:
        yield from _path_checks(provider, type_, sample)
    for name, wanted, verdict in _cases(provider, sample, signed):
        try:
            got = verdict()
        except Exception as error:
            yield Check(f"{type_}: {name}", False, f"verify raised {error!r}; it must return a verdict for any bytes")
            continue
        detail = "" if got == wanted else f"is {'accepted' if got else 'refused'}"
        yield Check(f"{type_}: {name} is {'accepted' if wanted else 'refused'}", got == wanted, detail)


def _path_checks(provider: Provider, type_: str, sample: Sample) -> Iterator[Check]:
    """A path that leads nowhere costs no webhook, and is told nowhere else: without an id the key is the body's hash."""
    body = codec.loads(sample.body)
    for option in ("id_at", "occurred_at", "data_at"):
        path = getattr(provider, option)
        if path:
            found = at(body, path) is not None
            yield Check(f"{type_}: it has a member at `{option}`", found, "" if found else f"there is no {path!r} in the sample")


def _cases(provider: Provider, sample: Sample, signed: Pairs) -> Iterator[tuple[str, bool, Callable[[], bool]]]:
    def judged(headers: Pairs, body: bytes = sample.body, secrets: Sequence[str] = (SECRET,), at: int = NOW) -> Callable[[], bool]:
        return lambda: isinstance(provider.verify(_inbound(sample, headers, body), secrets, at), Verified)

    old = _signed(provider, sample, SECRET, NOW - DAY)
    timed = old != signed
    yield "the right signature", True, judged(signed)
    yield "a rotated secret, the new one first", True, judged(signed, secrets=("another-one", SECRET))
    yield "a rotated secret, the old one first", True, judged(signed, secrets=(SECRET, "another-one"))
    yield "another secret", False, judged(signed, secrets=("another-one",))
    yield "an empty secret", False, judged(_signed(provider, sample, "", NOW), secrets=("",))
    yield "no secret", False, judged(signed, secrets=())
    yield "an altered body", False, judged(signed, body=sample.body + b" ")
    yield "an empty body", False, judged(signed, body=b"")
    yield "a missing signature", False, judged([])
    yield "a doubled signature header", False, judged([*signed, *signed])
    yield "a truncated signature", False, judged([(name, value[:-2]) for name, value in signed])
    yield "an empty signature", False, judged([(name, "") for name, _ in signed])
    if timed:
        yield "a signature from a day ago", False, judged(old)
        yield "a signature from tomorrow", False, judged(_signed(provider, sample, SECRET, NOW + DAY))
        yield "an old delivery, judged as of its receipt,", True, judged(old, at=NOW - DAY)
        mixed = [(name, value.replace(str(NOW - DAY), str(NOW))) for name, value in old]
        yield "an altered timestamp", False, judged(mixed)
    for n, text in enumerate(GARBAGE):
        yield f"garbage {n} for a signature", False, judged([(name, text) for name, _ in signed])


def _signed(provider: Provider, sample: Sample, secret: str, at: int) -> Pairs:
    return list(provider.scheme.sign(sample.body, secret, at, sample.headers))


def _inbound(sample: Sample, signed: Pairs, body: bytes) -> Inbound:
    headers = [(name.lower(), value) for name, value in [*sample.headers, *signed]]
    return Inbound(method="POST", url="/", headers=headers, body=body)
