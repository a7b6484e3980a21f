"""The dashboard's page: served whole, under a policy that lets no log line become markup."""

import re

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from dashboard.app import STATIC, routes


async def test_the_page_and_its_files_are_served_under_a_strict_policy() -> None:
    """Each file with its type; scripts and styles from ourselves alone."""
    app = web.Application()
    app.router.add_routes(routes())
    async with TestClient(TestServer(app)) as client:
        for path, kind in (
            ("/", "html"),
            ("/dashboard.js", "javascript"),
            ("/dashboard.css", "css"),
        ):
            answer = await client.get(path)
            assert answer.status == 200
            assert kind in answer.content_type
            assert answer.headers["Content-Security-Policy"].startswith("default-src 'self'")


def test_the_page_holds_no_inline_script_and_the_script_makes_no_markup() -> None:
    """What the policy forbids is not there, and text goes in as text."""
    page = (STATIC / "index.html").read_text()
    script = (STATIC / "dashboard.js").read_text()

    assert re.findall(r"<script(?![^>]*\bsrc=)", page) == []
    assert re.findall(r"\son\w+=", page) == []
    assert "style=" not in page
    for forbidden in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert forbidden not in script


def test_every_element_that_the_script_names_is_on_the_page() -> None:
    """A renamed id would leave a silent hole."""
    page = (STATIC / "index.html").read_text()
    script = (STATIC / "dashboard.js").read_text()

    named = set(re.findall(r'byId\("([\w-]+)"\)', script))

    assert named
    assert named <= set(re.findall(r'id="([\w-]+)"', page))
