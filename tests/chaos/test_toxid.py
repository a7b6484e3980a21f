"""Conformance of the fault proxy: the same checks against ours, or against the server that is named.

`CHAOS_TOXIPROXY=host:port` names a real Toxiproxy, which must reach this machine's loopback; else
`chaos.toxid` is started. The upstream is an echo server here. Windows of time are wide above (a slow
machine) and tight below (a fault must not be weaker than asked for).
"""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from chaos import net
from chaos.conformance import (
    CHECKS,
    EARLY,
    LATE,
    NAME,
    Nonconforming,
    Probe,
    echo_server,
    failures,
    receive,
)
from chaos.net import LinkFailed, Links, fault_server
from chaos.toxid_links import cuts
from node.cli_errors import CliError
from runtime.entropy import SeededEntropy

pytestmark = [pytest.mark.chaos]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of the fault server."""
    with fault_server() as address:
        yield address


@pytest.fixture(scope="module")
def echo() -> Iterator[str]:
    """The address of a server that sends back what it gets."""
    with echo_server() as address:
        yield address


@pytest.fixture
def links(server: str) -> Iterator[Links]:
    """Links that are gone afterwards."""
    made = Links(server)
    yield made
    made.close()
    assert api(server, "GET", "/proxies") == (200, {}) or net.ENVIRONMENT in os.environ


def api(server: str, method: str, path: str, body: Any = None, agent: str = "t") -> tuple[int, Any]:
    """(status, JSON) of a call to the API; a body of bytes goes as it is."""
    return Probe(server, "").call(method, path, body, agent)


def dial(address: str) -> socket.socket:
    """A connection."""
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def trip(one: socket.socket, data: bytes = b"ping") -> float:
    """Seconds until all that was sent has come back."""
    started = time.monotonic()
    one.sendall(data)
    assert receive(one, len(data)) == data
    return time.monotonic() - started


def silent(one: socket.socket, seconds: float) -> bool:
    """Whether nothing comes for so long, not even an end."""
    one.settimeout(seconds)
    try:
        one.recv(1)
    except TimeoutError:
        return True
    else:
        return False
    finally:
        one.settimeout(10)


def took(seconds: float, wanted: float) -> bool:
    """Whether a duration is what was asked for, on a busy machine."""
    return wanted - EARLY <= seconds <= wanted + LATE


# -- the API


def test_the_api_answers_as_documented(server: str, echo: str) -> None:
    """Statuses and texts of proxies: made, refused, found, changed, removed."""
    body = {"name": "api", "upstream": echo, "listen": "127.0.0.1:0"}

    status, made = api(server, "POST", "/proxies", body)

    try:
        assert status == 201
        assert int(made["listen"].rpartition(":")[2]) > 0
        assert (made["upstream"], made["enabled"], made["toxics"]) == (echo, True, [])
        assert api(server, "POST", "/proxies", body)[0] == 409
        assert api(server, "GET", "/proxies/api")[1]["name"] == "api"
        assert "api" in api(server, "GET", "/proxies")[1]
        assert api(server, "POST", "/proxies/api", {"enabled": False})[1]["enabled"] is False
        assert api(server, "PATCH", "/proxies/api", {"enabled": True})[0] == 200
    finally:
        assert api(server, "DELETE", "/proxies/api")[0] == 204
    assert api(server, "DELETE", "/proxies/api")[0] == 404
    assert api(server, "GET", "/version")[0] == 200


def test_bad_requests_are_refused_with_the_text(server: str, echo: str) -> None:
    """Missing fields, no JSON, a browser, a port in use, paths that are not there."""
    missing = api(server, "POST", "/proxies", {"upstream": echo})
    assert missing == (400, {"error": "missing required field: name", "status": 400})
    assert api(server, "POST", "/proxies", {"name": "x"})[1]["error"] == (
        "missing required field: upstream"
    )
    assert api(server, "POST", "/proxies", b"{no")[1]["error"].startswith("bad request body")
    assert api(server, "POST", "/proxies", {"name": 5, "upstream": echo})[0] == 400
    assert api(server, "GET", "/proxies", agent="Mozilla/5.0")[0] == 403
    assert api(server, "GET", "/nothing")[0] == 404
    assert api(server, "PUT", "/proxies", {})[0] in (404, 405)
    taken = {"name": "taken", "upstream": echo, "listen": echo}
    assert api(server, "POST", "/proxies", taken)[0] == 500
    assert api(server, "GET", "/proxies/taken")[0] == 404


def test_toxics_are_made_changed_listed_and_removed(server: str, echo: str) -> None:
    """Defaults, conflicts over both streams, updates that merge, the order of the list."""
    body = {"name": "tox", "upstream": echo, "listen": "127.0.0.1:0", "enabled": False}
    api(server, "POST", "/proxies", body)
    base = "/proxies/tox/toxics"
    try:
        status, made = api(server, "POST", base, {"type": "latency", "attributes": {"latency": 9}})
        assert status == 200
        assert made == {
            "name": "latency_downstream", "type": "latency", "stream": "downstream",
            "toxicity": 1, "attributes": {"latency": 9, "jitter": 0},
        }  # fmt: skip
        again = {"type": "timeout", "stream": "upstream", "name": "latency_downstream"}
        assert api(server, "POST", base, again)[0] == 409
        change = {"attributes": {"jitter": 3}, "name": "other", "type": "timeout"}
        _, changed = api(server, "POST", f"{base}/latency_downstream", change)
        assert changed["attributes"] == {"latency": 9, "jitter": 3}
        assert (changed["name"], changed["type"]) == ("latency_downstream", "latency")
        assert api(server, "POST", base, {"type": "limit_data", "stream": "UPSTREAM"})[0] == 200
        names = [one["name"] for one in api(server, "GET", base)[1]]
        assert names == ["limit_data_UPSTREAM", "latency_downstream"]
        assert api(server, "POST", base, {"type": "plague"})[1]["error"] == "invalid toxic type"
        assert api(server, "POST", base, {"type": "noop", "stream": "side"})[0] == 400
        wrong = {"type": "latency", "stream": "upstream", "attributes": {"latency": "9"}}
        assert api(server, "POST", base, wrong)[0] == 400
        assert api(server, "DELETE", f"{base}/latency_downstream")[0] == 204
        assert api(server, "DELETE", f"{base}/latency_downstream")[0] == 404
        assert api(server, "GET", f"{base}/nothing")[1]["error"] == "toxic not found"
    finally:
        api(server, "DELETE", "/proxies/tox")


def test_populate_keeps_what_is_equal_and_says_which_entry_is_bad(server: str, echo: str) -> None:
    """All entries are looked at before the first is made."""
    one = {"name": "p1", "upstream": echo, "listen": "127.0.0.1:0", "enabled": False}
    try:
        assert api(server, "POST", "/populate", [one, {"name": "p2"}])[1]["error"] == (
            "missing required field: upstream at proxy 2"
        )
        assert api(server, "GET", "/proxies/p1")[0] == 404
        api(server, "POST", "/populate", [one])
        api(server, "POST", "/proxies/p1/toxics", {"type": "noop"})
        status, made = api(server, "POST", "/populate", [one, {**one, "name": "p2"}])
        assert status == 201
        assert [len(proxy["toxics"]) for proxy in made["proxies"]] == [1, 0]
    finally:
        for name in ("p1", "p2"):
            api(server, "DELETE", f"/proxies/{name}")


def test_values_of_the_wrong_type_are_refused_in_a_list_as_well(server: str, echo: str) -> None:
    """Neither 500 nor a broken connection."""
    good = {"name": "p1", "upstream": echo, "listen": "127.0.0.1:0"}
    for name, value in (("name", ["p"]), ("upstream", 5), ("listen", 7), ("enabled", "yes")):
        status, told = api(server, "POST", "/populate", [{**good, name: value}])
        assert (status, told["error"][:16]) == (400, "bad request body")
    assert api(server, "POST", "/populate", ["p1"])[0] == 400
    assert api(server, "GET", "/proxies/p1")[0] == 404


def test_a_proxy_on_all_interfaces_is_back_on_its_port(server: str, echo: str) -> None:
    """Made without an address to listen at, closed, opened again: IPv4 reaches it as before."""
    made = api(server, "POST", "/proxies", {"name": "wide", "upstream": echo})[1]
    port = made["listen"].rpartition(":")[2]
    try:
        for enabled in (False, True):
            api(server, "POST", "/proxies/wide", {"enabled": enabled})

        assert api(server, "GET", "/proxies/wide")[1]["listen"] == made["listen"]
        with dial(f"127.0.0.1:{port}") as one:
            assert trip(one) < 1
    finally:
        api(server, "DELETE", "/proxies/wide")


# -- the data


def test_data_pass_unchanged_and_in_order(links: Links, echo: str) -> None:
    """A megabyte through a link without a fault."""
    with dial(links.link("plain", echo)) as one:
        data = os.urandom(1 << 20)
        threading.Thread(target=one.sendall, args=(data,), daemon=True).start()

        assert receive(one, len(data)) == data


def test_latency_comes_and_goes_on_old_and_new_connections(links: Links, echo: str) -> None:
    """200 ms on a live connection and on a new one; at once again after the heal."""
    address = links.link("late", echo)
    with dial(address) as old:
        assert trip(old) < 0.2
        links.slow("late", 200)

        assert took(trip(old), 0.2)
        with dial(address) as new:
            assert took(trip(new), 0.2)
        links.heal("late")
        assert trip(old) < 0.2


def test_latency_holds_a_burst_once_and_not_piece_by_piece(links: Links, echo: str) -> None:
    """Pieces that come together leave together: 64 KiB under 300 ms take 300 ms."""
    with dial(links.link("burst", echo)) as one:
        links.slow("burst", 300)
        started = time.monotonic()
        for _ in range(16):
            one.sendall(b"x" * 4096)
            time.sleep(0.005)

        assert len(receive(one, 65_536)) == 65_536
        assert took(time.monotonic() - started, 0.3)


def test_toxicity_zero_hits_nobody(server: str, links: Links, echo: str) -> None:
    """The share of connections that a toxic hits."""
    with dial(links.link("lucky", echo)) as one:
        body = {"type": "latency", "toxicity": 0.0, "attributes": {"latency": 2000}}
        api(server, "POST", "/proxies/lucky/toxics", body)

        assert trip(one) < 0.5


def test_bandwidth_is_a_rate(links: Links, echo: str) -> None:
    """50 kB at 100 kB/s take half a second."""
    with dial(links.link("thin", echo)) as one:
        links.throttle("thin", 100, "upstream")

        assert took(trip(one, b"x" * 50_000), 0.5 - 0.1)  # the last slice may leave early
        with pytest.raises(ValueError, match="use cut"):
            links.throttle("thin", 0)


def test_limit_data_ends_after_exactly_so_many_bytes(links: Links, echo: str) -> None:
    """100 of 1000 bytes, then the end; each connection has its own count; 0 lets nothing through."""
    address = links.link("short", echo)
    links.cut_after("short", 100)
    for _ in range(2):
        with dial(address) as one:
            one.sendall(b"y" * 1000)
            assert receive(one, 1000) == b"y" * 100
    links.heal("short")
    links.cut_after("short", 0)
    with dial(address) as one:
        one.sendall(b"y")
        assert receive(one, 1) == b""


def test_replies_alone_can_be_lost(links: Links, echo: str) -> None:
    """Nothing comes, not even an end; the heal closes, as what was dropped cannot come back."""
    with dial(links.link("deaf", echo)) as one:
        assert trip(one) < 1
        links.cut("deaf", "downstream")
        one.sendall(b"ping")
        assert silent(one, 0.5)

        links.heal("deaf")
        assert receive(one, 1) == b""


def test_a_timeout_counts_from_the_last_data(server: str, links: Links, echo: str) -> None:
    """150 ms without data end the connection; data restart it."""
    with dial(links.link("idle", echo)) as one:
        body = {"type": "timeout", "stream": "upstream", "attributes": {"timeout": 400}}
        api(server, "POST", "/proxies/idle/toxics", body)
        started = time.monotonic()
        for _ in range(8):
            one.sendall(b"z")
            time.sleep(0.1)

        assert receive(one, 1) == b""
        assert time.monotonic() - started >= 0.8 + 0.3 - EARLY


def test_a_reset_hits_connections_that_are_made_under_it(links: Links, echo: str) -> None:
    """New ones end by a reset after their first data; one that is older sees an end."""
    address = links.link("rude", echo)
    with dial(address) as old:
        assert trip(old) < 1
        links.reset("rude")
        with dial(address) as new:
            new.sendall(b"ping")
            with pytest.raises(ConnectionResetError):
                receive(new, 4)
        old.sendall(b"ping")
        assert receive(old, 4) == b""


def test_a_link_that_is_cut_refuses_and_is_the_same_after_the_heal(links: Links, echo: str) -> None:
    """Live connections end, new ones are refused; then the same address works again."""
    address = links.link("off", echo)
    with dial(address) as one:
        assert trip(one) < 1
        links.cut("off")
        with contextlib.suppress(ConnectionResetError):
            assert receive(one, 1) == b""
    with pytest.raises(ConnectionRefusedError):
        dial(address)

    links.heal("off")
    with dial(address) as one:
        assert trip(one) < 1


def test_the_end_of_a_client_ends_its_connection_to_the_upstream(links: Links) -> None:
    """And an upstream that is not there ends the client's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = links.link("end", f"127.0.0.1:{listener.getsockname()[1]}")
        with dial(address) as one:
            upstream, _ = listener.accept()
            one.sendall(b"last words")
        with upstream:
            upstream.settimeout(10)
            assert receive(upstream, 100) == b"last words"
    with dial(address) as one:
        assert receive(one, 1) == b""


def test_what_cannot_be_had_is_said(server: str, links: Links, echo: str) -> None:
    """The same link twice, a toxic that is not in place, a server that is not there."""
    links.link("once", echo)
    with pytest.raises(LinkFailed, match="ProxyExists"):
        links.link("once", echo)
    api(server, "DELETE", "/proxies/once")
    with pytest.raises(LinkFailed, match="NotFound"):
        links.slow("once", 5)
    with pytest.raises(LinkFailed):
        links.close()
    for bad in ("nowhere", "host:", ":1", "host:x"):
        with pytest.raises(CliError, match="host:port"):
            Links(bad)


def test_the_conformance_script_finds_nothing(server: str) -> None:
    """What `python -m chaos.conformance HOST:PORT` asks of a real Toxiproxy holds for this server."""
    said: list[str] = []

    assert failures(server, said.append) == [], said
    assert len(said) == len(CHECKS)


def test_the_conformance_script_finds_a_server_that_does_nothing(server: str) -> None:
    """Checks of data that never meet their toxic fail: here it is added to nobody."""

    class Careless(Probe):
        def toxic(self, kind: str, stream: str = "downstream", **attributes: int) -> None:
            pass

    with echo_server() as echo:
        probe = Careless(server, echo)
        for check in CHECKS[2:9]:
            body = {"name": NAME, "upstream": echo, "listen": "127.0.0.1:0"}
            probe.expect(201, "POST", "/proxies", body)
            try:
                with pytest.raises((Nonconforming, TimeoutError)):
                    check(probe)
            finally:
                probe.call("DELETE", f"/proxies/{NAME}")


@pytest.mark.parametrize(
    ("length", "average", "variation"), [(1000, 100, 20), (1, 1, 0), (7, 1, 0), (0, 5, 4)]
)
def test_slices_are_in_order_and_about_as_long_as_asked_for(
    length: int, average: int, variation: int
) -> None:
    """None is empty or longer than average and variation; together they are all of it."""
    ends = cuts(length, average, variation, SeededEntropy(3))

    sizes = [b - a for a, b in zip([0, *ends], ends, strict=False)]
    assert ends[-1] == length
    assert sum(sizes) == length
    assert all(0 < size <= average + variation for size in sizes) or length == 0


def test_a_client_that_takes_nothing_does_not_hold_up_a_change(server: str, links: Links) -> None:
    """Megabytes wait for it; closing the link is answered all the same, and loses them."""
    data = b"x" * (32 << 20)
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        address = links.link("stuck", f"127.0.0.1:{upstream.getsockname()[1]}")
        with dial(address):
            one, _ = upstream.accept()
            with one, contextlib.suppress(OSError):
                one.settimeout(1)
                one.sendall(data)
            started = time.monotonic()

            links.cut("stuck")

            assert time.monotonic() - started < 5
