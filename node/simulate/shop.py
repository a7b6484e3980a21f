"""The shop as data: who calls whom on behalf of a request, and what each of them logs.

A flow is a tree of spans in the order they start. Texts hold up to two numbers, written `{kind}`;
the kinds are in `KINDS`. The money of the shop is whole euros with a price ending of .90.
"""

from dataclasses import dataclass

#: Numbers that a text may hold: drawn once per request, but for `ms` and `n`, drawn per row.
KINDS = ("order", "user", "amount", "sku", "ms", "n")


@dataclass(frozen=True, slots=True)
class Span:
    """One call: `parent` is the index of its caller in the flow, -1 for the root.

    `texts` are logged in order, as (level, text) with level debug or info; `broken` is the text of
    the error if this span fails, or passes the failure of a callee on.
    """

    service: str
    operation: str
    parent: int
    texts: tuple[tuple[str, str], ...]
    broken: str


@dataclass(frozen=True, slots=True)
class Flow:
    """A kind of request: its share of the traffic, its route (method, path), its spans."""

    name: str
    weight: float
    method: str
    path: str
    spans: tuple[Span, ...]


def _gate(operation: str, path: str) -> Span:
    return Span(
        "gateway",
        operation,
        -1,
        (("info", f"request {path} from user {{user}}"), ("info", f"{path} answered in {{ms}} ms")),
        f"{path} failed after {{ms}} ms: upstream error",
    )


_LOGIN = Flow(
    "login", 10, "POST", "/login",
    (
        _gate("POST /login", "/login"),
        Span("auth", "verify", 0,
             (("debug", "password hash checked in {ms} ms"), ("info", "user {user} signed in")),
             "sign-in of user {user} failed: session store unreachable"),
        Span("sessions", "create", 1, (("debug", "session stored, {n} live for user {user}"),),
             "redis timeout after {ms} ms"),
    ),
)  # fmt: skip
_BROWSE = Flow(
    "browse", 40, "GET", "/products",
    (
        _gate("GET /products", "/products"),
        Span("catalog", "list", 0,
             (("debug", "cache hit for category page {n}"), ("info", "listed {n} products")),
             "product list unavailable: query failed after {ms} ms"),
        Span("recommendations", "for_user", 0,
             (("debug", "model answered in {ms} ms"), ("debug", "{n} recommendations for user {user}")),
             "recommendation model timed out after {ms} ms"),
    ),
)  # fmt: skip
_SEARCH = Flow(
    "search", 22, "GET", "/search",
    (
        _gate("GET /search", "/search"),
        Span("search", "query", 0,
             (("info", "search returned {n} hits in {ms} ms"),),
             "search shard did not answer within {ms} ms"),
        Span("catalog", "hydrate", 1, (("debug", "hydrated {n} products"),),
             "hydration failed: sku-{sku} has no price"),
    ),
)  # fmt: skip
_CART = Flow(
    "cart", 14, "POST", "/cart",
    (
        _gate("POST /cart", "/cart"),
        Span("cart", "add", 0, (("info", "sku-{sku} added to cart of user {user}"),),
             "cart of user {user} could not be saved"),
        Span("inventory", "check", 1, (("debug", "sku-{sku} has {n} in stock"),),
             "stock of sku-{sku} unknown: replica lag {ms} ms"),
    ),
)  # fmt: skip
_CHECKOUT = Flow(
    "checkout", 9, "POST", "/checkout",
    (
        _gate("POST /checkout", "/checkout"),
        Span("orders", "place", 0,
             (("info", "order ord-{order} created for user {user}"),
              ("info", "order ord-{order} confirmed in {ms} ms")),
             "order ord-{order} aborted"),
        Span("inventory", "reserve", 1, (("info", "reserved {n} items for ord-{order}"),),
             "reservation for ord-{order} failed: deadlock after {ms} ms"),
        Span("payments", "charge", 1,
             (("debug", "risk score {n} for ord-{order}"),
              ("info", "charged {amount}.90 EUR for ord-{order}")),
             "card declined: {amount}.90 EUR for ord-{order}"),
        Span("shipping", "label", 1, (("info", "label printed for ord-{order} in {ms} ms"),),
             "carrier answered 502 for ord-{order}"),
        Span("notifications", "mail", 1, (("info", "mail for ord-{order} queued to user {user}"),),
             "mail for ord-{order} bounced"),
    ),
)  # fmt: skip
_TRACK = Flow(
    "track", 5, "GET", "/orders",
    (
        _gate("GET /orders", "/orders"),
        Span("orders", "status", 0, (("info", "status of ord-{order} read in {ms} ms"),),
             "ord-{order} not readable: stale replica"),
        Span("shipping", "track", 1, (("debug", "carrier polled in {ms} ms for ord-{order}"),),
             "carrier timed out after {ms} ms"),
    ),
)  # fmt: skip
FLOWS = (_LOGIN, _BROWSE, _SEARCH, _CART, _CHECKOUT, _TRACK)
SERVICES = tuple(sorted({span.service for flow in FLOWS for span in flow.spans}))

#: What any service may warn of instead of its ordinary text.
WARNINGS = (
    "slow call: {ms} ms, budget is 250 ms",
    "retry {n} after connection reset",
    "pool nearly exhausted: {n} connections waiting",
    "deprecated header from user {user}",
    "cache miss storm: {n} keys in {ms} ms",
)
REGIONS = ("eu-central", "eu-west", "us-east")
HOSTS_PER_SERVICE = 4
AGENTS = (
    "Mozilla/5.0 (X11; Linux x86_64) Firefox/131.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) Safari/605.1",
    "shop-app/7.4 (Android 15)",
    "curl/8.5.0",
)
