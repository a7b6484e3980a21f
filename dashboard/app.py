"""The dashboard's routes: `/` and its static files."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.Response]]
STATIC = Path(__file__).parent / "static"
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
FILES = {"/": "index.html", "/dashboard.js": "dashboard.js", "/dashboard.css": "dashboard.css"}


def routes() -> list[web.RouteDef]:
    """One route a file; the files are read once, at start."""
    return [web.get(path, _serve(STATIC / name)) for path, name in FILES.items()]


def _serve(path: Path) -> Handler:
    text = path.read_text(encoding="utf-8")

    async def handler(_: web.Request) -> web.Response:
        return web.Response(text=text, content_type=TYPES[path.suffix], headers=HEADERS)

    return handler
