"""`status`, `ring`, `doctor`, `version`: looking at a cluster, and at what keeps it from working."""

import argparse
import asyncio
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from node.cli_api import Api
from node.cli_errors import FAILED, OK, PARTIAL
from node.commands.membering import add_to_ring, run_ring_change
from node.render import bytes_text, note, print_json, print_table

VERSION = "0.1.0"


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Adds this group's commands."""
    status = commands.add_parser("status", parents=[common], help="the nodes and their health")
    status.set_defaults(run=lambda options: asyncio.run(run_status(options)))
    ring = commands.add_parser(
        "ring", parents=[common], help="who owns and leads each shard; spread the shards anew"
    )
    add_to_ring(ring)
    ring.set_defaults(run=lambda options: asyncio.run(run_ring(options)))
    doctor = commands.add_parser(
        "doctor",
        parents=[common],
        help="check this machine and the cluster",
        description="Exit code 0 if all is well, 1 if something keeps quorumlog from working,"
        " 3 if something is degraded.",
    )
    doctor.add_argument("--data", default="data", metavar="DIR", help="folder to test the disk in")
    doctor.set_defaults(run=run_doctor)
    version = commands.add_parser("version", parents=[common], help="print the version")
    version.set_defaults(run=run_version)


def run_version(options: argparse.Namespace) -> int:
    """The command `version`."""
    if options.json:
        print_json({"version": VERSION})
    else:
        print(f"quorumlog {VERSION}")
    return OK


async def run_status(options: argparse.Namespace) -> int:
    """The command `status`: 0 if all nodes are alive and each shard is led, else 3."""
    async with Api(options.server, options.tenant) as api:
        cluster = await api.get("/cluster")
    nodes = cluster.get("nodes", [])
    away = [str(one.get("id")) for one in nodes if not one.get("alive")]
    unled = cluster.get("shards_without_leader", [])
    healthy = not away and not unled and bool(nodes)
    if options.json:
        print_json({"healthy": healthy, **cluster})
        return OK if healthy else PARTIAL
    quorum = cluster.get("quorum", {})
    print(
        f"cluster {cluster.get('cluster_id')}: {len(nodes) - len(away)} of {len(nodes)} nodes alive,"
        f" {cluster.get('shard_count')} shards, N={quorum.get('n')} W={quorum.get('w')}"
        f" R={quorum.get('r')}, Raft leader {cluster.get('raft_leader') or 'none'}"
    )
    columns = ("node", "alive", "http", "roles", "owns", "leads", "rows", "on disk", "disk free")
    print_table("", columns, [_node_row(one) for one in nodes])
    if away:
        note(f"not alive: {', '.join(away)}")
        note("  next: look at their logs; `quorumlog up` restarts what is not running here")
    if unled:
        note(f"{len(unled)} shards have no leader: sequenced writes to them wait")
        note("  next: this lasts a second after a failure; if it stays, see `quorumlog doctor`")
    return OK if healthy else PARTIAL


def _node_row(node: Mapping[str, Any]) -> list[Any]:
    storage = (node.get("status") or {}).get("storage") or {}
    sizes = [storage.get(name) for name in ("bytes", "disk_free_bytes")]
    return [
        node.get("id"),
        node.get("alive"),
        node.get("http"),
        ",".join(node.get("roles", [])),
        node.get("owns"),
        node.get("leads"),
        storage.get("rows"),
        *(bytes_text(size) if isinstance(size, int | float) else "" for size in sizes),
    ]


async def run_ring(options: argparse.Namespace) -> int:
    """The command `ring`."""
    if options.action != "show":
        return await run_ring_change(options)
    async with Api(options.server, options.tenant) as api:
        answer = await api.get("/cluster/shards")
    shards = answer.get("shards", [])
    complete = all(one.get("leader") and one.get("owners") for one in shards)
    if options.json:
        print_json(answer)
        return OK if complete else PARTIAL
    rows = [
        [
            one.get("shard"),
            ", ".join(one.get("owners", [])),
            one.get("leader"),
            one.get("shard_epoch"),
        ]
        for one in shards
    ]
    print(f"ring epoch {answer.get('ring_epoch')}, {len(shards)} shards")
    print_table("", ("shard", "owners", "leader", "epoch"), rows)
    leads = Counter(one.get("leader") or "nobody" for one in shards)
    note("leads: " + ", ".join(f"{name} {count}" for name, count in sorted(leads.items())))
    return OK if complete else PARTIAL


def run_doctor(options: argparse.Namespace) -> int:
    """The command `doctor`."""
    from node.doctor import Verdict, examine

    findings = asyncio.run(examine(options.server, Path(options.data)))
    if options.json:
        print_json({"findings": [one.to_dict() for one in findings]})
    else:
        marks = {Verdict.GOOD: "ok  ", Verdict.WARN: "warn", Verdict.BAD: "BAD "}
        for one in findings:
            print(f"{marks[one.verdict]}  {one.name}: {one.text}")
            if one.advice:
                print(f"      next: {one.advice}")
    verdicts = {one.verdict for one in findings}
    if Verdict.BAD in verdicts:
        return FAILED
    return PARTIAL if Verdict.WARN in verdicts else OK
