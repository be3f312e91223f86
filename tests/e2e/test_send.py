"""`tidegate send`, with files as people have them: long, broken in the middle, from Windows, one big array."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.processes import API_KEY, Site, site

LIMIT = 20_000


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("site"), settings={"TIDEGATE_MAX_BODY_BYTES": str(LIMIT)}) as made:
        made.run("migrate")
        made.start("gateway")
        made.wait_ready()
        yield made


def tidegate(served: Site, *words: str) -> tuple[int, str]:
    (served.folder / "send.log").unlink(missing_ok=True)
    done = served.run("send", *words)
    return done.returncode, done.stdout


def send(served: Site, content: bytes, name: str = "events.jsonl", *words: str) -> tuple[int, str]:
    (served.folder / name).write_bytes(content)
    return tidegate(served, "--file", name, *words)


def count(served: Site, name: str) -> int:
    return served.get(f"/events/count?name={name}")["count"]


def lines(name: str, n: int, **more: object) -> list[bytes]:
    return [json.dumps({"name": name, "data": {"n": i, "pad": "x" * 50}, **more}).encode() for i in range(n)]


def test_one_event_is_answered_with_its_id_and_nothing_else(served):
    code, said = tidegate(served, "one/event", "--id", "k")
    event_id = said.removesuffix("\n")
    assert (code, event_id, event_id.isalnum()) == (0, event_id.strip(), False)
    assert tidegate(served, "one/event", "--id", "k") == (0, f"{event_id} (seen before)\n")


def test_a_file_larger_than_a_body_may_be_goes_in_batches_and_the_bar_ends_full(served):
    code, said = send(served, b"\n".join(lines("many/lines", 1000)))
    assert (code, count(served, "many/lines")) == (0, 1000)
    assert "100%" in said
    assert "1000 events sent\n" in said


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bom/lines", b"\xef\xbb\xbf" + b"\r\n".join(lines("bom/lines", 3)) + b"\r\n"),
        ("blank/lines", b"\n\n" + b"\n\n".join(lines("blank/lines", 3)) + b"\n\n"),
        ("bom/array", b"\xef\xbb\xbf \n[" + b",\n".join(lines("bom/array", 3)) + b"]\n"),
        ("line/array", b"[" + b",".join(lines("line/array", 3)) + b"]"),
        ("twin/array", b"[" + b",".join(lines("twin/array", 1) * 3) + b"]"),
        ("lone/surrogates", b'[{"name": "lone/surrogates", "data": "\\ud800"}' + b',{"name": "lone/surrogates"}' * 2 + b"]"),
    ],
)
def test_every_shape_of_file_is_taken(served, name, content):
    assert send(served, content)[0] == 0
    assert count(served, name) == 3


def test_one_event_over_many_lines_is_one_event(served):
    assert send(served, json.dumps({"name": "pretty/one", "data": [1, 2]}, indent=2).encode())[0] == 0
    assert count(served, "pretty/one") == 1


def test_an_arrays_events_arrive_byte_for_byte(served):
    send(served, b'[{"name": "exact/array", "data": {"z": 12345678901234567890123, "a": 1.50, "a": 1e999}}]')
    event_id = served.get("/events?name=exact/array")["data"][0]["id"]
    (served.folder / "events.log").unlink(missing_ok=True)
    shown = served.run("events", "show", event_id, "--json").stdout
    assert all(number in shown for number in ("12345678901234567890123", "1.50", "1e999"))


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (b'{"name": "part/broken", "data": }', "Expecting value at column 33"),
        (b'{"data": 1}', "required field `name`"),
        (b'{"name": "no slash"}', "`user/created`"),
        (b'{"name": "part/broken", "id": ""}', "1 to 255"),
        (b'{"name": "part/broken", "data": NaN}', "NaN"),
        (b"[]", "no JSON object"),
    ],
)
def test_a_failure_names_the_line_and_says_what_was_sent_and_how_to_go_on(served, broken, why):
    before = count(served, "part/broken")
    good = lines("part/broken", 600)
    code, said = send(served, b"\n".join([*good[:500], broken, *good[500:]]))
    sent = count(served, "part/broken") - before
    assert (code, 0 < sent <= 500) == (1, True)
    assert "events.jsonl, line 501: " in said
    assert why in said
    assert f"{sent} already sent; send the file again" in said
    assert f"tail -n +{sent + 1} events.jsonl | tidegate send --file -" in said


def test_the_rest_can_be_sent_from_where_it_stopped(served):
    good = lines("rest/sent", 500)
    (served.folder / "rest.jsonl").write_bytes(b"\n".join([*good[:400], b"broken", *good[400:]]))
    _, said = tidegate(served, "--file", "rest.jsonl")
    first = int(said.partition("tail -n +")[2].partition(" ")[0])
    mended = b"\n".join([*good[:400], *good[400:]][first - 1 :])
    environment = {"TIDEGATE_URL": served.url(), "TIDEGATE_API_KEY": API_KEY, "TIDEGATE_MAX_BODY_BYTES": str(LIMIT), "PATH": ""}
    command = [sys.executable, "-m", "gateway.cli", "send", "--file", "-"]
    done = subprocess.run(command, input=mended, capture_output=True, check=True, env=environment, cwd=sys.path[0] or ".")
    assert b"events sent" in done.stdout
    assert count(served, "rest/sent") == 500


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (b'[\n{"name": "array/broken"},\n{"name": 7}\n]', "line 3, event 2: "),
        (b'[\n{"name": "array/broken"},\n7]', "line 3, event 2: "),
        (b'[\n{"name": "array/broken"},\n{"name": }]', "line 3: "),
        (b'{\n"name": "array/broken"\n"data": 1}', "at line 3, column 1"),
        (b"this is no JSON", "line 1: "),
    ],
)
def test_a_file_that_is_wrong_from_the_start_sends_nothing_and_names_the_place(served, content, where):
    code, said = send(served, content)
    assert (code, where in said, "Nothing was sent." in said) == (1, True, True), said
    assert count(served, "array/broken") == 0


def test_ids_make_sending_again_harmless(served):
    events = b"\n".join(json.dumps({"name": "again/sent", "id": f"k{n}"}).encode() for n in range(300))
    send(served, events)
    assert "300 of them seen before" in send(served, events)[1]
    assert count(served, "again/sent") == 300


def test_without_a_gateway_it_says_so_and_that_the_batch_may_have_been_taken(served):
    served.settings["TIDEGATE_URL"] = "http://127.0.0.1:9"
    code, said = send(served, b"\n".join(lines("no/gateway", 3)))
    del served.settings["TIDEGATE_URL"]
    assert (code, "tidegate serve" in said, "0 already sent, and perhaps the 3 after them" in said) == (1, True, True)
