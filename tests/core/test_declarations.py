"""What authors declare wrongly is told in words that name the option, the class or the line, and says what to write."""

from __future__ import annotations

from pathlib import Path

import pytest

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
