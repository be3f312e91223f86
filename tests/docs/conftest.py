"""A running Tidegate that the pages can be held against: with the functions and the provider that they show."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.docs.pages import blocks
from tests.processes import Site, site

FUNCTIONS = '''
from gateway import NonRetriableError, function

@function(on="user/created")
async def welcome(ctx):
    """Welcomes a user."""
    ctx.logger.info("welcome")
    return {"welcomed": True}

@function(on="user/deleted")
async def never(ctx):
    raise NonRetriableError("there is nobody to say goodbye to")
'''


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A gateway and a worker on SQLite, with the sources `stripe` and `github`."""
    settings = {"GITHUB_WEBHOOK_SECRET": "not-a-real-secret"}
    with site(tmp_path_factory.mktemp("docs"), functions=FUNCTIONS, settings=settings) as made:
        for block in blocks("python"):
            folder = made.folder / ("providers" if "(Provider):" in block.text else "functions")
            folder.mkdir(exist_ok=True)
            if block.page.name != "README.md":
                (folder / f"{block.page.stem}_{block.line}.py").write_text(block.text)
        made.start("serve")
        made.wait_ready()
        made.run("send", "user/deleted")
        yield made
