"""VictoriaLogs over HTTP, at an address that the user names.

    victoria-logs -storageDataPath=DIR -retentionPeriod=10y

The retention must reach back to the corpus, or its rows are dropped. Rows go in as JSON lines with
`service` as stream field; each run is a tenant of its own (`AccountID`), since there is no table to drop.
An acknowledgement comes before the rows are on disk: they are written within about five seconds.
"""

import http.client
import json
import os
import re

from bench.corpus import Body
from bench.peers.base import HttpPeer, request
from bench.questions import PAGE_ROWS, TOP_ROWS, Facts, Plain, Question, micros

PAGE = f"| sort by (_time desc) limit {PAGE_ROWS} | fields _time, _msg"
SENT = {"_time_field": "timestamp", "_msg_field": "message", "_stream_fields": "service"}
#: The tenant's other number tells the corpora of a run apart.
PROJECTS = {"slim": "1", "rich": "2"}
_SIZE = re.compile(r'^vl_data_size_bytes\{type="(?:storage|indexdb)"\} (\S+)$', re.MULTILINE)


def queries(facts: Facts) -> dict[str, str]:
    """Each question in LogsQL."""
    hour = f"_time:[{facts.hour_start}, {facts.hour_end})"
    regex = json.dumps(facts.regex)
    return {
        "count by level": "* | stats by (level) count() as n",
        "latest 100 of a service and level in an hour": f'{hour} {{service="{facts.service}"}}'
        f' level:="{facts.level}" {PAGE}',
        "rare word": f'"{facts.word}" {PAGE}',
        "phrase count": f'"{facts.phrase}" | stats count() as n',
        "rows per minute per service": "* | stats by (_time:1m, service) count() as n",
        "regex count": f"~{regex} | stats count() as n",
        "one trace_id": f'trace_id:="{facts.trace_id}" {PAGE}',
        "one user_id": f'user_id:="{facts.user_id}" {PAGE}',
        "p95 duration by service": "* | stats by (service) quantile(0.95, duration_ms) as n",
        "top 10 hosts by errors": 'level:="error" | stats by (host) count() as n'
        f" | sort by (n desc, host) limit {TOP_ROWS}",
    }


def plain(lines: bytes, question: Question) -> Plain:
    """JSON lines, all values text, as tuples."""
    rows = [json.loads(line) for line in lines.splitlines() if line]
    if question.shape == "rows":
        return [(micros(row["_time"]), row["_msg"]) for row in rows]
    number = float if question.shape == "quantile" else int
    found: Plain = []
    for row in rows:
        count = number(row.pop("n"))
        time = [micros(row.pop("_time"))] if "_time" in row else []
        found.append((*time, *row.values(), count))
    return found


class VictoriaLogs(HttpPeer):
    """A server of one node."""

    name = "VictoriaLogs"
    note = "1 copy, ack before the rows are on disk"
    estimates = True

    def __init__(self, url: str, pid: int | None = None, data: str | None = None) -> None:
        super().__init__(url, pid, data)
        self._account = str(int.from_bytes(os.urandom(4)) >> 1)
        self._kind = ""
        self._queries: dict[str, str] = {}
        self._before: dict[str, int] = {}

    def _tenant(self, kind: str) -> dict[str, str]:
        return {"AccountID": self._account, "ProjectID": PROJECTS[kind]}

    def _select(self, kind: str, query: str) -> bytes:
        params = {"query": query}
        return request(self.link, "GET", "/select/logsql/query", None, self._tenant(kind), params)

    def _stored(self) -> int:
        found = request(self.link, "GET", "/metrics").decode()
        return sum(int(float(one)) for one in _SIZE.findall(found))

    def open(self, kind: str) -> None:
        """Notes what the server holds, to know later what was added."""
        self._before[kind] = self._stored()

    def encode(self, kind: str, body: Body) -> bytes:
        """JSON lines, as they are."""
        return body.json

    def post(self, link: http.client.HTTPConnection, kind: str, payload: bytes) -> None:
        """One request to the JSON lines endpoint."""
        headers = {"Content-Type": "application/stream+json", **self._tenant(kind)}
        request(link, "POST", "/insert/jsonline", payload, headers, SENT)

    def count(self, kind: str) -> int:
        """Rows that a query sees, after the server was asked to show what it has."""
        request(self.link, "GET", "/internal/force_flush")
        found = plain(self._select(kind, "* | stats count() as n"), _COUNT)
        return int(found[0][0]) if found else 0

    def disk_bytes(self, kind: str) -> int | None:
        """What the server holds more than at `open`, data and stream index."""
        return self._stored() - self._before[kind]

    def bind(self, kind: str, facts: Facts) -> None:
        """What the questions are about."""
        self._kind, self._queries = kind, queries(facts)

    def ask(self, question: Question) -> Plain | None:
        """The rows of the answer."""
        return plain(self._select(self._kind, self._queries[question.name]), question)


_COUNT = Question("count", "slim", "groups", 0)
