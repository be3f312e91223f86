"""`tidegate trigger`: a realistic sample, signed with the source's own secret, through the front door."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from gateway.cli.output import Json
from gateway.errors import NotFound, TidegateError
from gateway.sdk.provider import Provider
from gateway.settings import Settings, secret_variable

FINAL = {"succeeded", "failed", "cancelled", "skipped"}


def trigger(
    source: Annotated[str, typer.Argument(help="A source, such as stripe.")],
    type_: Annotated[str, typer.Argument(metavar="TYPE", help="What to send, such as invoice.paid.")],
    follow: Annotated[bool, typer.Option(help="Follow its runs to the end.")] = True,
    timeout: Annotated[float, typer.Option(help="Seconds to follow.")] = 30,
    as_json: Json = False,
) -> None:
    """Sign a sample with the source's secret, post it as the third party would, and follow its runs.

    Exit code 1 when a run fails, or is not final in time. Away from the gateway's machine the gateway signs the sample. With
    `--no-follow` an API key with the scope `send` is enough.
    """
    from gateway.cli.client import Client
    from gateway.cli.output import console, print_json

    client = Client()
    if follow:
        _refuse_unknown(client, source, type_)
    sent = _post(client, source, type_)
    event_id = sent["id"]
    if not as_json:
        console.print(f"200, event {event_id}{' (seen before: the sample has the same id again)' if sent['duplicate'] else ''}")
    if not follow:
        if as_json:
            print_json(sent)
        return
    deliveries = _follow(client, event_id, timeout, as_json)
    if as_json:
        print_json({**sent, "deliveries": deliveries})
    elif not deliveries:
        _say_nobody_listens(client, event_id, sent["duplicate"])
    if any(delivery["status"] == "failed" or delivery["status"] not in FINAL for delivery in deliveries):
        raise typer.Exit(1)


def _refuse_unknown(client: Any, name: str, type_: str) -> None:
    """Say what there is, and how to make what there is not."""
    sources = {source["name"]: source for source in client.get("/sources")["data"]}
    if name in sources:
        if sources[name]["left_out"]:
            raise NotFound(f"the source {name!r} is left out: {sources[name]['left_out']}")
        shown = sources[name]
        if type_ not in shown["samples"]:
            samples = "\n  ".join(shown["samples"]) or "(none)"
            raise NotFound(f"{shown['provider']} has no sample {type_!r}; it has:\n  {samples}")
        return
    providers = [provider["name"] for provider in client.get("/providers")["data"]]
    variable = secret_variable(name)
    make = f"; make it: tidegate sources add {name}, or set {variable} and start again" if name in providers else ""
    raise NotFound(f"there is no source {name!r} (there are: {', '.join(sorted(sources)) or 'none'}){make}")


def _post(client: Any, source: str, type_: str) -> dict[str, Any]:
    """Through the front door, signed here; or, where the secret or the sample is not to be had here, by the gateway itself."""
    from gateway.cli.client import CallFailed

    try:
        provider, secret = _signer(client.settings, source, type_)
    except TidegateError:
        return client.send("POST", f"/sources/{source}/test", {"type": type_})
    sample = provider.sample(type_)
    headers = [*sample.headers, *provider.scheme.sign(sample.body, secret, int(time.time()), sample.headers)]
    response = client.deliver(f"/webhooks/{source}", sample.body, headers)
    if response.status_code != 200:
        raise CallFailed(f"the gateway answered {response.status_code}: {response.text}")
    return response.json()


def _signer(settings: Settings, name: str, type_: str) -> tuple[Provider, str]:
    """A source's provider, which has this sample, and newest secret, as the gateway has stored them. Raises NotFound when they are
    not here."""
    from gateway.clock import system_clock
    from gateway.ingest.sources import unseal
    from gateway.registry import load_providers
    from gateway.store import schema
    from gateway.store.cipher import load_cipher
    from gateway.store.database import open_database
    from gateway.store.reads import Reads

    cipher = load_cipher(settings.master_key, settings.data_dir)
    schema.check(settings.resolved_database_url)
    database = open_database(settings.resolved_database_url)
    row = next((row for row in Reads(database).sources() if row["name"] == name), None)
    database.close()
    providers = load_providers(settings.providers).providers
    if row is None or row["provider"] not in providers or type_ not in providers[row["provider"]].samples:
        raise NotFound(f"the source {name!r} or its sample {type_!r} is not here")
    now = system_clock()
    live = [secret for secret in unseal(cipher, row) if secret.lives(now)]
    if not live:
        raise NotFound(f"the source {name!r} has no live secret")
    return providers[row["provider"]], max(live, key=lambda secret: (secret.created_at, -secret.n)).text


def _say_nobody_listens(client: Any, event_id: str, duplicate: bool) -> None:
    from gateway.cli.output import console

    name = client.get(f"/events/{event_id}")["name"]
    if duplicate and client.get(f"/event-types/{name}")["functions"]:
        console.print("When this event came first, no function listened to it; one does now. Run it: tidegate events replay", event_id)
    else:
        console.print(f"No function listens to {name}. Write one in functions/, and start again.")


def _follow(client: Any, event_id: str, timeout: float, quiet: bool) -> list[dict[str, Any]]:
    from gateway.cli.output import cell, console, error_line

    seen: dict[str, tuple[Any, ...]] = {}
    deadline = time.monotonic() + timeout
    while True:
        deliveries = client.get(f"/events/{event_id}/deliveries")["data"]
        for delivery in deliveries:
            state = (delivery["status"], delivery["attempts"])
            if seen.get(delivery["function_id"]) != state and not quiet:
                rest = error_line(delivery["error"]) or delivery["skip_reason"] or ""
                if delivery["next_attempt_at"] and delivery["status"] == "waiting":
                    rest = f"next attempt at {delivery['next_attempt_at']}"
                console.print(f"  {delivery['function_id']:<24}", cell(delivery["status"]), *([rest] if rest else []))
                seen[delivery["function_id"]] = state
        if all(delivery["status"] in FINAL for delivery in deliveries):
            return deliveries
        if time.monotonic() > deadline:
            if not quiet:
                console.print(f"Still not final after {timeout:g} s; look again with: tidegate events show {event_id}")
            return deliveries
        time.sleep(0.1)
