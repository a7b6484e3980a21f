"""Limits on the values of canonical columns: a name too long is a bad row, a message too long is cut.

Everything is checked on lengths or on distinct values; only a column that breaks a limit is touched.
"""

import re
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from ingestor.limits import Limits
from ingestor.parsers.base import quoted
from ingestor.schema import Canonical
from records.errors import InvalidRequest

pc: Any = pyarrow.compute

#: Names of services and producers that a request gives itself, and of tenants.
IDENTIFIER = re.compile(r"[A-Za-z0-9_.:/@-]{1,128}")
TENANT = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


def check_identifier(value: Any, what: str) -> str:
    """`value` if it can name a service, a producer or a tenant.

    Raises:
        InvalidRequest: details `reason` is `bad_service` or `bad_producer`, after `what`.
    """
    allowed, more = (TENANT, "") if what == "tenant" else (IDENTIFIER, " / @")
    if isinstance(value, str) and allowed.fullmatch(value) and value not in (".", ".."):
        return value
    shown = quoted(value) if value is not None else "nothing"
    raise InvalidRequest(
        f"{what}: 1 to 128 of A-Z a-z 0-9 _ . : -{more} are expected, not {shown}",
        reason=f"bad_{what}",
    )


def apply_limits(made: Canonical, limits: Limits) -> None:
    """Marks rows whose service is too long, cuts messages over the row limit (`_truncated`: bytes lost)."""
    _check_services(made, limits)
    _cut_messages(made, limits)


def _check_services(made: Canonical, limits: Limits) -> None:
    services = made.columns["service"]
    sizes = np.asarray(pc.binary_length(services.dictionary))
    too_long = np.flatnonzero(sizes > limits.identifier_bytes)
    if too_long.size == 0:
        return
    for row in np.flatnonzero(np.isin(np.asarray(services.indices), too_long)):
        size = sizes[services.indices[int(row)].as_py()]
        reason = f"service: {size} bytes; at most {limits.identifier_bytes}"
        made.bad.setdefault(int(row), ("bad_service", reason))


def _cut_messages(made: Canonical, limits: Limits) -> None:
    messages = made.columns["message"]
    if made.rows == 0 or pc.max(pc.binary_length(messages)).as_py() <= limits.row_bytes:
        return
    sizes = np.asarray(pc.binary_length(messages)).astype(np.int64)
    lost = np.zeros(made.rows, np.int64)
    texts = messages.to_pylist()
    for row in np.flatnonzero(sizes > limits.row_bytes):
        cut = texts[row].encode()[: limits.row_bytes].decode("utf-8", "ignore")
        lost[row] = sizes[row] - len(cut.encode())
        texts[row] = cut
    made.columns["message"] = pa.array(texts, pa.string())
    made.columns["_truncated"] = pa.array(lost, mask=lost == 0)
