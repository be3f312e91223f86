"""The API's client, as the CLI uses it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import httpx
import msgspec

from gateway.errors import TidegateError
from gateway.settings import Settings, load

SECONDS = 30


class CallFailed(TidegateError):
    """The gateway did not do it. `problem` is what it answered; None where it did not answer, and may have done it."""

    def __init__(self, message: str, problem: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.problem = problem


def own_key(settings: Settings) -> str:
    """The API key to call with: the configured one, or the one that the master key gives."""
    from gateway.store.cipher import load_cipher  # 6 MB that a worker goes without

    return settings.api_key or load_cipher(settings.master_key, settings.data_dir).local_api_key()


def reached_at(settings: Settings) -> str:
    """Where the gateway is: as set, or where the one that was started here last has said it listens."""
    said = settings.data_dir / "gateway.url"
    if settings.url or settings.port != Settings.port or settings.host != Settings.host or not said.exists():
        return settings.base_url
    return said.read_text().strip() or settings.base_url


class Client:
    """Calls the gateway's API, with TIDEGATE_API_KEY or, on the gateway's machine, the key that its master key gives."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or load()
        self.url = reached_at(self.settings)
        headers = {"Authorization": f"Bearer {own_key(self.settings)}"}
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=SECONDS, follow_redirects=False)

    def get(self, path: str, **parameters: Any) -> Any:
        """The JSON at `/api/v1{path}`; parameters that are None or empty are left out."""
        given = {name: value for name, value in parameters.items() if value not in (None, [], ())}
        return self._call("GET", f"/api/v1{path}", params=given).json()

    def members(self, path: str) -> dict[str, msgspec.Raw]:
        """The members of the JSON object at `/api/v1{path}`, each exactly as it stands there."""
        raw = self.raw(path)
        try:
            return msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        except msgspec.DecodeError:  # lone surrogates are beyond it
            return {name: msgspec.Raw(json.dumps(value).encode()) for name, value in json.loads(raw).items()}

    def raw(self, path: str) -> bytes:
        """The bytes at `/api/v1{path}`."""
        return self._call("GET", f"/api/v1{path}").content

    def post(self, path: str, body: bytes = b"") -> Any:
        """Post JSON to `/api/v1{path}`."""
        headers = {"Content-Type": "application/json"}
        return self._call("POST", f"/api/v1{path}", content=body, headers=headers).json()

    def send(self, method: str, path: str, body: Any = None) -> Any:
        """Call `/api/v1{path}` with a JSON value; what it answers, or None where it answers nothing."""
        response = self._call(method, f"/api/v1{path}", **({} if body is None else {"json": body}))
        return response.json() if response.content else None

    def deliver(self, path: str, body: bytes, headers: list[tuple[str, str]]) -> httpx.Response:
        """Post as a third party would: with its headers and without our key."""
        try:
            return httpx.post(self.url + path, content=body, headers=headers, timeout=SECONDS)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None

    def _call(self, method: str, path: str, **rest: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **rest)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None
        if response.is_success:
            return response
        problem: dict[str, Any] = {}
        try:
            problem = response.json()
            message = f"{problem['detail']} ({problem['code']})"
        except (ValueError, KeyError, TypeError):
            message = f"{self.url} answered {response.status_code}, and not as Tidegate would"
        if response.status_code == 401:
            message += f"; {self._mend_key()}"
        raise CallFailed(message, problem)

    def _mend_key(self) -> str:
        """What to do about the key that the gateway does not know, by where it came from."""
        if self.settings.api_key is not None:
            return "correct TIDEGATE_API_KEY, or unset it where the gateway's master key is"
        of = "TIDEGATE_MASTER_KEY" if self.settings.master_key is not None else f"{self.settings.data_dir}/master.key"
        return f"{of} is not the master key that this gateway runs with: set its TIDEGATE_MASTER_KEY here too, or TIDEGATE_API_KEY"

    def _unreachable(self, error: httpx.HTTPError) -> CallFailed:
        url = self.url
        if isinstance(error, httpx.UnsupportedProtocol):
            return CallFailed(f"TIDEGATE_URL is no URL of a gateway, such as http://127.0.0.1:8080: {url}")
        if isinstance(error, httpx.ReadTimeout):
            return CallFailed(f"the gateway at {url} has not answered for {SECONDS} s; see what its log says, and: tidegate doctor")
        return CallFailed(f"cannot reach the gateway at {url} ({type(error).__name__}); start it with: tidegate serve")
