"""The OpenAPI document against the server that serves it: every operation, with good data and bad, on both databases."""

from __future__ import annotations

import contextlib

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection

from tests.processes import API_KEY, site, until

AUTH = {"Authorization": f"Bearer {API_KEY}"}
FUNCTIONS = """
from gateway import Context, function

@function(on="stripe/*")
async def quick(ctx: Context) -> int:
    ctx.logger.info("a line")
    return 1
"""


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def document(request, tmp_path_factory, postgres_server):
    import psycopg

    url = ""
    if request.param == "postgresql":
        with psycopg.connect(postgres_server, autocommit=True) as connection:
            connection.execute("create database openapi")
        base, _, rest = postgres_server.partition("?")
        url = f"{base.rpartition('/')[0]}/openapi?{rest}"
    with site(tmp_path_factory.mktemp("openapi"), database_url=url, functions=FUNCTIONS) as made:
        made.run("migrate")
        made.start("gateway")
        made.start("worker")
        made.wait_ready()
        until(lambda: made.get("/functions")["data"])
        made.run("trigger", "stripe", "invoice.paid")
        yield schemathesis.openapi.from_url(made.url() + "/schema/openapi.json", headers=AUTH)


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_every_answer_is_one_that_the_document_names(document, mode):
    operations = [result.ok() for result in document.get_all_operations()]
    assert len(operations) > 40
    for operation in operations:

        @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
        @given(case=operation.as_strategy(generation_mode=mode))
        def check(case):
            response = case.call(headers=AUTH)
            if response.status_code == 400 and response.json()["code"] == "invalid_cursor":
                return  # a cursor is opaque: only those from an earlier answer are any
            # A query cannot tell a list of one from a text: what is wrong for the document is right on the wire.
            case.validate_response(response, excluded_checks=[negative_data_rejection] if mode is GenerationMode.NEGATIVE else [])

        with contextlib.suppress(Unsatisfiable):  # nothing can be wrong with a call that takes nothing
            check()
