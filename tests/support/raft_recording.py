"""Records what a build writes for its Raft group, so that later builds can be asked to read it.

    python -m tests.support.raft_recording FOLDER

One manager alone is given the same commands each time: every operation, refusals, bytes that are no
command. It writes a dump in the middle, and a journal after it. In FOLDER are then its Raft directory
(`raft/`), each command with its answer (`commands.json`, bytes in hexadecimal) and the state that it had in
the end (`state.bin`, as `cluster.state.to_bytes` of that build). An older build is recorded by copying this
file into its tree.
"""

import argparse
import asyncio
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster.consensus import ConsensusSettings
from cluster.consensus_pysyncobj import PySyncObjConsensus
from cluster.state import encode_command, to_bytes
from cluster.state_ops import OPS
from records.envelope import packb
from ring.builder import RingBuilder, build_ring
from ring.ring import Ring, RingMember
from ring.serde import to_dict
from runtime.clock import SystemClock

SHARDS = 8
SECRET = bytes(32)
#: The index of a dump among the commands: it is written when this many were answered.
DUMP_AFTER = 24
RAFT, COMMANDS, STATE = "raft", "commands.json", "state.bin"
#: Files of the Raft directory that are not part of what is kept.
TRANSIENT = ("lock",)


def settings(folder: Path, address: str, **more: Any) -> ConsensusSettings:
    """Of the recorded manager, on `folder`."""
    return ConsensusSettings("n0", "recorded", address, {"n0": address}, folder, SECRET, **more)


def _member(name: str) -> RingMember:
    return RingMember(name, "", 1.0)  # pyright: ignore[reportArgumentType]


def _hides(word: str) -> dict[str, Any]:
    return {"tenant": "default", "services": ["api"], "phrase": word, "end": 9_000_000}


def _first() -> Iterator[tuple[str, dict[str, Any]]]:
    """What the first build knew, as it meant it."""
    yield "Noop", {}
    yield "SetQuorum", {"expected_cluster_epoch": 0, "n": 3, "w": 2, "r": 2,
                        "cluster_id": "recorded", "shard_count": SHARDS}  # fmt: skip
    for port, name in enumerate("abcd", 1):
        address = f"10.0.0.{port}"
        yield "RegisterNode", {"id": name, "roles": ["ingestor", "storage"], "incarnation": 1,
                               "http": f"http://{address}:7171", "peer": f"{address}:7172",
                               "zone": f"z{port % 2}", "weight": port / 2}  # fmt: skip
    yield "RegisterNode", {"id": "a", "roles": ["storage"], "incarnation": 1}  # refused
    ring = to_dict(build_ring([_member(name) for name in "abc"], n=3, shard_count=SHARDS))
    yield "SetRing", {"expected_ring_epoch": 0, "map": ring, "stage": "new"}
    yield "SetRing", {"expected_ring_epoch": 0, "map": ring}  # refused
    yield "Assign", {"assignments": [[shard, "abc"[shard % 3], 0] for shard in range(SHARDS)]}
    yield "Assign", {"assignments": [[0, "b", 0], [1, "c", 1]]}  # the one refused, the other done
    yield "SetWatermark", {"tenant": "default", "service": "api", "t": 5_000_000}
    yield "SetWatermark", {"tenant": "default", "service": "api", "t": 4_000_000}  # stays
    yield "AddDelete", {"id": "d1", "predicate": _hides("card")}
    yield "AddDelete", {"id": "d2", "predicate": _hides("name")}
    for version in range(2):
        yield "PutSchema", {"name": "s", "expected_version": version, "body": f"{version}"}
    yield "PutSchema", {"name": "s", "expected_version": 0, "body": "refused"}
    yield "PutGrant", {"id": "g1", "expected_version": 0, "body": {"roles": ["query"]}}
    yield "PutGrant", {"id": "g2", "expected_version": 0, "body": b"\x00\xff"}
    yield "DropGrant", {"id": "g1"}
    yield "SetFeatureLevel", {"level": 1}
    # The dump is written about here.
    yield "RegisterNode", {"id": "b", "roles": ["ingestor", "storage"], "incarnation": 2}
    yield "Assign", {"assignments": [[3, "b", 1]]}
    yield "SetWatermark", {"tenant": "default", "service": "api", "t": 6_000_000}
    yield "DropDelete", {"id": "d1", "proofs": ["a"]}  # refused
    yield "DropDelete", {"id": "d1", "proofs": ["a", "b", "c", "d"]}
    yield "PutSchema", {"name": "s", "expected_version": 2, "body": ["later", 1.5, None, True]}


def _moves() -> Iterator[tuple[str, dict[str, Any]]]:
    """A change of the ring, left in the middle; a second one that was given up; a service that is split."""
    now = build_ring([_member(name) for name in "abc"], n=3, shard_count=SHARDS)
    target = RingBuilder(now).remove("a").add(_member("d")).build()
    starts = [
        [shard, *(_only(now, target, shard)), *(_only(target, now, shard))]
        for shard in range(SHARDS)
        if set(now.table[shard]) != set(target.table[shard])
    ]
    shards = [row[0] for row in starts]
    wanted = {"map": to_dict(target), "reason": "replace a", "parallel": 4, "bytes_per_second": 0}
    yield "BeginChange", {"expected_ring_epoch": 1, **wanted, "retire": "a"}
    yield "BeginChange", {"expected_ring_epoch": 2, **wanted}  # refused
    yield "AbortChange", {"id": 2}
    yield "EndChange", {"id": 2, "expected_ring_epoch": 2}
    yield "BeginChange", {"expected_ring_epoch": 3, **wanted, "retire": "a"}
    yield "StepChange", {"id": 4, "expected_ring_epoch": 4, "start": starts[:4]}
    yield "StepChange", {"id": 4, "expected_ring_epoch": 5, "flip": shards[:3]}
    yield "StepChange", {"id": 4, "expected_ring_epoch": 5, "flip": shards[:3]}  # refused
    step = {"finish": shards[:2], "start": starts[4:5]}
    yield "StepChange", {"id": 4, "expected_ring_epoch": 6, **step}
    for generation, factor in enumerate((2, 4)):
        yield "SplitService", {"tenant": "default", "service": "hot", "factor": factor, "at": 7,
                               "expected_generation": generation}  # fmt: skip
    yield "SetWatermark", {"tenant": "default", "service": "", "t": 5_500_000}
    yield (
        "SetQuorum",
        {"expected_cluster_epoch": 1, "n": 3, "w": 3, "r": 1},
    )  # refused: a change runs
    yield "RetireNode", {"id": "a", "incarnation": 1}  # refused: it leads, and is in the ring


def _only(one: Ring, other: Ring, shard: int) -> list[str]:
    return [str(node) for node in set(one.table[shard]) - set(other.table[shard])]


def commands() -> list[bytes]:
    """All of them as they are sent; those of a build that knows moves are more."""
    rows = [*_first(), *(_moves() if "BeginChange" in OPS else ())]
    sent = [
        encode_command(op, args, ("p", 1, number), level=1)
        for number, (op, args) in enumerate(rows)
    ]
    return [
        *sent[:5],
        b"garbage",
        packb({"lv": 1, "op": "Noop", "rid": ["p", 1], "args": {}}),
        encode_command("Noop", {}, ("p", 1, 900), level=9),
        sent[2],  # once more: the same answer, nothing done
        *sent[5:],
    ]


async def record(folder: Path) -> None:
    """Into `folder`, which is made."""
    with tempfile.TemporaryDirectory() as scratch:
        raft = Path(scratch) / "raft"
        own = PySyncObjConsensus(settings(raft, "127.0.0.1:17973", bootstrap=True), SystemClock())
        answers: list[dict[str, Any]] = []
        async with own:
            await own.wait_ready()
            for number, command in enumerate(commands()):
                if number == DUMP_AFTER:
                    await _dump(own)
                until = asyncio.get_running_loop().time() + 10.0
                answer, _ = await own._proposer.attempt(command, until)
                answers.append({"command": command.hex(), "answer": answer})
            state = own.snapshot()
        shutil.copytree(raft, folder / RAFT, ignore=shutil.ignore_patterns(*TRANSIENT))
        (folder / COMMANDS).write_text(json.dumps(answers, indent=0) + "\n", encoding="utf-8")
        (folder / STATE).write_bytes(to_bytes(state))


async def _dump(own: PySyncObjConsensus) -> None:
    assert own._node is not None
    own._node.forceLogCompaction()
    until = time.monotonic() + 10.0
    while not own.status()["dumps"]:
        assert time.monotonic() < until, "no dump"
        await asyncio.sleep(0.02)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    asyncio.run(record(parser.parse_args().folder))


if __name__ == "__main__":
    main()
