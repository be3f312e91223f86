"""What authors declare wrongly is told in words that name the option, the class or the line, and says what to write."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway import Event, new_event
from gateway.errors import DeclarationError
from gateway.registry import Registry, load_functions, load_providers

FUNCTION = """
from gateway import CancelOn, Idempotency, Timeouts, function


@function({options})
async def mine(ctx): ...
"""
PROVIDER = """
from gateway import Hmac, Items, Provider


class Acme(Provider):
    {name}
    scheme = {scheme}
    type_at = "type"
"""


def load(load_all, folder: Path, **files: str) -> Registry:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return load_all([folder])


def told(registry: Registry, folder: Path) -> list[str]:
    return [broken.message for broken in registry.broken if Path(broken.file).parent == folder]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("on=7", "`on` takes an event class, an event name or a wildcard, or a list of them; not 7 (line 5)"),
        ('on="a/b", cancel_on="x/z"', "`cancel_on` takes CancelOn(event, match=…), or a list of them; not 'x/z' (line 5)"),
        ('on="a/b", cancel_on=CancelOn(7, match="data.id")', "CancelOn takes event classes that have a name, and names; not 7 (line 5)"),
        ('on="a/b", idempotency=7', "`idempotency` takes a CEL expression, such as 'event.data.id', or Idempotency(key=…); not 7 (line 5)"),
        ('on="a/b", idempotency="even.data"', "`idempotency` knows no variable `even`, only `event`: 'even.data' (line 5)"),
        (
            'on="a/b", cancel_on=CancelOn("n/stop", match="order_id")',
            "`match` of CancelOn is a path into the data that both events have, such as `data.order_id`; not 'order_id' (line 5)",
        ),
        (
            'on="a/b", cancel_on=CancelOn("n/*", match="data.id")',
            "CancelOn: 'n/*' is a wildcard; name one event, such as `user/created`; for several events give a list of several CancelOn"
            " (line 5)",
        ),
        (
            'on="a/b", cancel_on=CancelOn("nonsense name", match="data.id")',
            "CancelOn: 'nonsense name' is no event name: use letters, digits, `_.-:` and a `/`, as in `user/created` (line 5)",
        ),
        (
            'on="a/b", timeouts=Timeouts()',
            "Timeouts takes `start` or `finish`, or both; with neither it limits nothing: leave it out (line 5)",
        ),
        ('on="a/b", timeouts=60', "`timeouts` takes Timeouts(start=…, finish=…); not 60 (line 5)"),
        ('on="a/b", timeouts=Timeouts(finnish=3)', "Timeouts takes no `finnish`; did you mean `finish`? (line 5)"),
        ('on="a/b", retrys=3', "@function takes no `retrys`; did you mean `retries`? (line 5)"),
    ],
)
def test_a_wrong_option_of_a_function_is_named_with_what_it_takes(tmp_path, options, says):
    assert told(load(load_functions, tmp_path, declared=FUNCTION.format(options=options)), tmp_path) == [says]


@pytest.mark.parametrize(
    ("name", "scheme", "says"),
    [
        ('name = "acme"', 'Hmac(headr="X-Signature")', "Hmac takes no `headr`; did you mean `header`? (line 7)"),
        (
            'name = "acme"',
            'Hmac(header="A", items=Items(time="t", signature="v1"))',
            "Items takes no `time`; did you mean `timestamp`? (line 7)",
        ),
        ("", 'Hmac(header="X-Signature")', 'class Acme: declare its `name`, such as `name = "acme"`: the first part of every event name'),
        ('name = "acme"', "None", "class Acme: provider 'acme' has no `scheme`: without one nothing can be verified"),
    ],
)
def test_a_wrong_option_of_a_provider_is_named_with_its_class_or_line(tmp_path, name, scheme, says):
    assert told(load(load_providers, tmp_path, declared=PROVIDER.format(name=name, scheme=scheme)), tmp_path) == [says]


@pytest.mark.parametrize("name", ["tidegate/function.failed", "tidegate/anything", "no-slash", "a b/c", "a/", "a/*", "", 7])
def test_a_name_that_nobody_may_send_is_refused_where_an_event_is_made(name):
    with pytest.raises(DeclarationError, match=r"Event name .*: (use letters|what begins with `tidegate/` is sent by Tidegate alone)"):
        new_event(name)


def test_an_event_of_tidegates_own_may_be_typed_but_not_made():
    class Mine(Event[dict], name="tidegate/function.failed"): ...

    with pytest.raises(DeclarationError, match="sent by Tidegate alone"):
        Mine.new({})


def test_no_provider_is_called_as_tidegate_is(tmp_path):
    [said] = told(load(load_providers, tmp_path, own=PROVIDER.format(name='name = "tidegate"', scheme='Hmac(header="A")')), tmp_path)
    assert said == "class Acme: provider name 'tidegate': event names that begin with `tidegate/` are Tidegate's own; choose another"


@pytest.mark.parametrize("name", ["", "no-slash", "a b/c", "a/*"])
def test_an_event_class_has_the_name_of_one_event(name):
    if name:
        with pytest.raises(DeclarationError, match="the name of class Mine"):
            type("Mine", (Event,), {}, name=name)
    else:
        assert type("Mine", (Event,), {}, name=name).event_name == ""


def test_of_two_functions_of_one_id_both_lines_are_told(tmp_path):
    twice = FUNCTION.format(options='on="a/b"')
    found = load(load_functions, tmp_path, first=twice + twice, second=twice)
    in_first, in_second = told(found, tmp_path)
    assert in_first == "line 11: function 'mine' is also declared in line 5, which is kept; give one of them another name"
    assert in_second.startswith("line 5: function 'mine' is also declared in ")
    assert "first.py, line 5, which is kept" in in_second


def test_of_two_providers_of_one_name_both_classes_are_told(tmp_path):
    one = PROVIDER.format(name='name = "acme"', scheme='Hmac(header="A")')
    found = load(load_providers, tmp_path, aaa=one + one.replace("class Acme", "class Other"), acme=one.replace("class Acme", "class Own"))
    second, pushed_out = told(found, tmp_path)
    assert second.startswith("class Other: provider 'acme' is also declared in class Acme, which is kept")
    assert pushed_out.startswith("class Acme: provider 'acme' is also declared in ")
    assert "acme.py, class Own, which is kept" in pushed_out
    assert type(found.providers["acme"]).__name__ == "Own"


def test_a_module_that_declares_nothing_is_known(tmp_path):
    found = load(load_functions, tmp_path, nothing="X = 1\n", _helps="Y = 1\n")
    assert [Path(file).name for file in found.idle] == ["nothing.py"]
    (tmp_path / "nothing.py").write_text("from gateway import Provider\n")
    assert [Path(file).name for file in load_providers([tmp_path]).idle] == ["nothing.py"]


@pytest.mark.parametrize("retries", [0, 100])
def test_a_handler_of_failures_has_its_own_retries_and_not_those_of_its_function(tmp_path, retries):
    text = f"from gateway import function\ndef tell(ctx): ...\n@function(on='a/b', retries={retries}, on_failure=tell)\ndef f(ctx): ...\n"
    found = load(load_functions, tmp_path, declared=text)
    assert [found.functions[name].spec.retries for name in ("f", "f.on-failure")] == [retries, 4]
