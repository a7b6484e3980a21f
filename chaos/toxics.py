"""Toxics as values: which kinds there are, what they take, how they look in the API. Pure.

The names, defaults and error texts are those of Toxiproxy's HTTP API, version 2, and so are the kinds.
Another kind is refused as an unknown one, never taken and ignored.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Stream = Literal["upstream", "downstream"]
STREAMS: tuple[Stream, ...] = ("upstream", "downstream")
#: The attributes of each kind, integers, 0 unless given. Times in ms (a slicer's in
#: µs), rate in 1000 bytes a second, sizes in bytes.
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "latency": ("latency", "jitter"),
    "bandwidth": ("rate",),
    "timeout": ("timeout",),
    "limit_data": ("bytes",),
    "reset_peer": ("timeout",),
    "slow_close": ("delay",),
    "slicer": ("average_size", "size_variation", "delay"),
    "noop": (),
}


class ApiError(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(eq=False, slots=True)
class Toxic:
    """One fault on one direction of a proxy. `toxicity`: the share of connections that it hits."""

    name: str
    kind: str
    stream: Stream
    toxicity: float = 1.0
    attributes: dict[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """As the API shows it, with all attributes."""
        return {
            "attributes": {name: self.attributes.get(name, 0) for name in ATTRIBUTES[self.kind]},
            "name": self.name,
            "type": self.kind,
            "stream": self.stream,
            "toxicity": self.toxicity,
        }

    def update(self, body: Mapping[str, Any]) -> None:
        """Takes attributes and toxicity; what is absent stays, anything else is ignored."""
        toxicity = _number(body.get("toxicity"), self.toxicity)
        given = _attributes(self.kind, body.get("attributes"))
        self.toxicity = toxicity
        self.attributes.update(given)


def parse_toxic(body: Mapping[str, Any], taken: Collection[str] = ()) -> Toxic:
    """The toxic that a request asks for; `taken`: names that there are. What is wrong first is said first.

    Raises:
        ApiError: 400, an unknown kind or stream, or a value of the wrong type; 409, the name is taken.
    """
    kind, given = _text(body, "type"), _text(body, "stream") or "downstream"
    stream = given.lower()
    if stream not in STREAMS:
        raise ApiError(400, "stream was invalid, can be either upstream or downstream")
    if kind not in ATTRIBUTES:
        raise ApiError(400, "invalid toxic type")
    name = _text(body, "name") or f"{kind}_{given}"  # as it was written, as the original does
    if name in taken:
        raise ApiError(409, "toxic already exists")
    toxicity = _number(body.get("toxicity"), 1.0)
    return Toxic(name, kind, stream, toxicity, _attributes(kind, body.get("attributes")))


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise ApiError(400, f"bad request body: {name} is no text")
    return value or ""


def _number(value: Any, default: float) -> float:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ApiError(400, "bad request body: toxicity is no number")
    return float(value)


def _attributes(kind: str, given: Any) -> dict[str, int]:
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise ApiError(400, "bad request body: attributes are no object")
    taken = {
        name: given[name] for name in ATTRIBUTES[kind] if given.get(name) is not None
    }  # fmt: skip
    for name, value in taken.items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise ApiError(400, f"bad request body: {name} is no integer")
    return taken
