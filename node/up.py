"""`quorumlog up`: a whole cluster on this machine, one process per node.

Run again on the same folder it starts what is not running. It restarts nothing by itself: a node that
dies is reported and the others go on, so that what is seen is what the cluster does, not what a
babysitter hides. Ctrl-C (or SIGTERM) stops all nodes in order; the data stays.
"""

import json
import os
import secrets
import shutil
import signal
import sys
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

from node import up_process as processes
from node.cli_errors import FAILED, OK, USAGE, CliError
from node.up_plan import (
    PORT_BASE,
    ClusterPlan,
    NodePlan,
    existing_cluster,
    grown,
    node_toml,
    plan_cluster,
    settings_text,
)
from node.up_process import NodeProcess

#: Seconds for a new cluster to become ready: interpreter start, Raft election, first ring.
READY_SECONDS = 90.0
#: The demo: rows a second, and the seconds of history that a new cluster starts with.
DEMO_RATE = 40
DEMO_HISTORY_SECONDS = 900


@dataclass(frozen=True, slots=True)
class UpOptions:
    """What the user asked for; None stands for a default."""

    folder: Path
    nodes: int | None
    replicas: int | None
    port_base: int | None
    demo: bool
    detach: bool
    json: bool = False


class _Stopped(KeyboardInterrupt):
    """A signal asked us to stop."""


def load_or_make(options: UpOptions) -> tuple[ClusterPlan, bool]:
    """The cluster in the folder, made if it is new, with further nodes if asked; and whether it is new.

    Raises:
        CliError: options that an existing cluster contradicts, or an unreadable file.
    """
    found = sorted(options.folder.glob("node*/node.toml"))
    if not found:
        plan = plan_cluster(
            options.folder,
            f"ql-{secrets.token_hex(6)}",
            3 if options.nodes is None else options.nodes,
            options.replicas,
            PORT_BASE if options.port_base is None else options.port_base,
        )
        processes.check_ports(list(plan.nodes))
        _write(plan, options.folder)
        return plan, True
    tables = {one.parent.name: _read_toml(one) for one in found}
    plan = existing_cluster(options.folder, tables)
    facts = {
        "--rf": (options.replicas, plan.replicas),
        "--port-base": (options.port_base, plan.nodes[0].http_port),
    }
    for name, (wanted, held) in facts.items():
        if wanted is not None and wanted != held:
            raise CliError(
                f"the cluster in {options.folder} was made with {name} {held}, not {wanted}",
                f"leave {name} out, or start another cluster with --data OTHER",
                USAGE,
            )
    if options.nodes is not None:
        plan = _grow(plan, options, next(iter(tables.values()))["cluster"])
    return plan, False


def _grow(plan: ClusterPlan, options: UpOptions, cluster: dict[str, Any]) -> ClusterPlan:
    added = grown(plan, options.folder, options.nodes or 0)
    processes.check_ports(list(added))
    _write_settings(options.folder, {node: settings_text(node, cluster) for node in added})
    return replace(plan, nodes=(*plan.nodes, *added))


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CliError(f"{path}: {error}", "repair the file") from error


def _write(plan: ClusterPlan, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "secret", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(32))
    except OSError as error:
        raise _unwritable(folder, error) from error
    _write_settings(folder, {node: node_toml(plan, node) for node in plan.nodes})


def _write_settings(folder: Path, texts: dict[NodePlan, str]) -> None:
    try:
        for node, text in texts.items():
            node.folder.mkdir(exist_ok=True)
            node.config.write_text(text, encoding="utf-8")
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> CliError:
    return CliError(f"cannot write into {folder}: {error.strerror}", "--data OTHER")


def write_cluster_json(folder: Path, plan: ClusterPlan, running: list[NodeProcess]) -> None:
    """Writes who runs where, as a whole."""
    n, w, r = plan.quorum
    body = {
        "cluster_id": plan.id,
        "n": n,
        "w": w,
        "r": r,
        "nodes": [one.plan.described(one.pid) for one in running],
    }
    fresh = folder / "cluster.json.tmp"
    fresh.write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")
    fresh.replace(folder / "cluster.json")


def wait_ready(running: list[NodeProcess], seconds: float = READY_SECONDS) -> None:
    """Returns when every node answers /ready with 200.

    Raises:
        CliError: one ended, or time is up; says what each waits for and what its log says.
    """
    until = time.monotonic() + seconds
    waiting = list(running)
    last: dict[str, Any] = {}
    while waiting:
        for one in list(waiting):
            if not one.running:
                raise CliError(
                    f"{one.plan.id} ended with exit code {one.exit_code}:\n  "
                    + "\n  ".join(processes.log_tail(one.plan)),
                    f"its whole log is {one.plan.log}",
                )
            answer = processes.ask(one.plan, "/ready")
            last[one.plan.id] = answer[1].get("waiting_for") if answer else "no answer"
            if answer is not None and answer[0] == 200:
                waiting.remove(one)
        if waiting and time.monotonic() > until:
            state = ", ".join(f"{one.plan.id}: {last[one.plan.id]}" for one in waiting)
            raise CliError(f"not ready after {seconds:.0f} s ({state})", "see the logs named above")
        if waiting:
            time.sleep(processes.POLL_SECONDS)


def up(options: UpOptions, say: Callable[[str], None]) -> int:
    """Starts the cluster and, unless detached, stays with it until it is told to stop."""
    plan, new = load_or_make(options)
    running = [found for node in plan.nodes if (found := processes.find(node))]
    known = {one.plan.id for one in running}
    missing = [node for node in plan.nodes if node.id not in known]
    processes.check_ports(missing)
    for one in running:
        say(f"{one.plan.id} runs already (pid {one.pid})")
    started: list[NodeProcess] = []
    _stop_on_signals()
    try:
        founding = not (options.folder / "cluster.json").exists()
        started += [
            processes.start(node, founding, not options.detach, node.joins) for node in missing
        ]
        by_id = {one.plan.id: one for one in (*running, *started)}
        everyone = [by_id[node.id] for node in plan.nodes]
        say(f"starting {len(started)} of {len(plan.nodes)} nodes in {options.folder} ...")
        wait_ready(everyone)
        write_cluster_json(options.folder, plan, everyone)
    except KeyboardInterrupt:
        processes.stop(started)
        return OK
    except BaseException:
        processes.stop(started)
        raise
    print(_result(plan, options), flush=True)
    if options.detach:
        if options.demo and new:
            _send_history(plan, say)
        say(f"the nodes stay; `{_command()} down --data {options.folder}` stops them")
        return OK
    return _stay(plan, options, everyone, new, say)


def down(folder: Path, say: Callable[[str], None]) -> int:
    """Stops the nodes that run of the cluster in `folder`.

    Raises:
        CliError: there is no cluster in it.
    """
    found = sorted(folder.glob("node*/node.toml"))
    if not found:
        raise CliError(f"there is no cluster in {folder}", "--data DIR, as given to `up`", USAGE)
    plan = existing_cluster(folder, {one.parent.name: _read_toml(one) for one in found})
    running = [process for node in plan.nodes if (process := processes.find(node))]
    for one in processes.stop(running):
        say(f"{one.plan.id} did not end within {processes.STOP_SECONDS:.0f} s and was killed")
    say(f"{len(running)} of {len(plan.nodes)} nodes were running and are stopped; the data stays")
    return OK


def _stop_on_signals() -> None:
    def stop(_: int, __: FrameType | None) -> None:
        raise _Stopped

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, stop)


def _stay(
    plan: ClusterPlan,
    options: UpOptions,
    running: list[NodeProcess],
    new: bool,
    say: Callable[[str], None],
) -> int:
    demo = _start_demo(plan, options.folder, new) if options.demo else None
    alive, code = list(running), OK
    try:
        while alive:
            time.sleep(0.5)
            for one in [one for one in alive if not one.running]:
                alive.remove(one)
                _report_death(one, say)
            if demo is not None and demo.poll() is not None:
                say(
                    f"the demo has ended (exit code {demo.returncode}); see {options.folder}/demo.log"
                )
                demo = None
        if any(one.exit_code for one in running):
            say("no node is left")
            code = FAILED
    except KeyboardInterrupt:
        say("\nstopping ...")
    finally:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # once is enough
        if demo is not None and demo.poll() is None:
            demo.terminate()
            demo.wait()
        for one in processes.stop(alive):
            say(f"{one.plan.id} did not end within {processes.STOP_SECONDS:.0f} s and was killed")
    say(f"stopped; the data stays in {options.folder}")
    return code


def _report_death(process: NodeProcess, say: Callable[[str], None]) -> None:
    how = "" if process.exit_code is None else f" with exit code {process.exit_code}"
    if process.exit_code is not None and process.exit_code < 0:
        how = f", killed by {signal.Signals(-process.exit_code).name}"
    say(f"{process.plan.id} (pid {process.pid}) has ended{how}; the others go on")
    say(f"  next: its log is {process.plan.log}; `{_command()} up` in another terminal restarts it")


def _start_demo(plan: ClusterPlan, folder: Path, new: bool) -> Any:
    words = ["simulate", "--to", "cluster", "--rate", str(DEMO_RATE)]
    if new:
        words += ["--history", str(DEMO_HISTORY_SECONDS)]
    for node in plan.nodes:
        words += ["--server", node.url]
    return processes.start_process(processes.module_command(*words), folder / "demo.log", tied=True)


def _send_history(plan: ClusterPlan, say: Callable[[str], None]) -> None:
    rows = DEMO_RATE * DEMO_HISTORY_SECONDS
    say(f"sending {rows:,} rows of a simulated shop ...")
    from node.cli import main

    words = ["simulate", "--to", "cluster", "--rate", str(DEMO_RATE), "--rows", str(rows)]
    words += ["--history", str(DEMO_HISTORY_SECONDS + 60)]
    for node in plan.nodes:
        words += ["--server", node.url]
    if main(words) != OK:
        say("the sample rows could not all be sent; the cluster runs all the same")


def _command() -> str:
    """How this command is called from here."""
    if shutil.which("quorumlog"):
        return "quorumlog"
    called = Path(sys.argv[0])
    if called.name != "quorumlog":
        return f"{sys.executable} -m node"
    try:
        return str(called.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(called)


def _result(plan: ClusterPlan, options: UpOptions) -> str:
    """What is printed when the cluster is ready: cluster.json, or a greeting."""
    if options.json:
        return (options.folder / "cluster.json").read_text(encoding="utf-8").rstrip()
    return _greeting(plan, options)


def _greeting(plan: ClusterPlan, options: UpOptions) -> str:
    n, w, _ = plan.quorum
    lines = [
        f"{len(plan.nodes)} nodes are ready; each row is on {n}, acknowledged when on {w} disks:"
    ]
    lines += [f"  {one.id}  {one.url}  log: {one.log}" for one in plan.nodes]
    first: NodePlan = plan.nodes[0]
    server = "" if first.http_port == PORT_BASE else f" --server {first.url}"
    lines += [
        "try:",
        f"  {_command()} query --level error --since 1h{server}",
        f"  {_command()} stats --by service,level{server}",
        f"  {_command()} send FILE{server}",
        f"  curl '{first.url}/query?level=error&limit=5'",
        f"  {first.url}/ in a browser: nodes, search, rows over time",
    ]
    for spare in _spares(plan):
        lines.append(f"{spare} keeps no rows yet: `{_command()} nodes add {spare} --wait{server}`")
    if not options.detach:
        lines.append("Ctrl-C stops the nodes; the data stays.")
    return "\n".join(lines)


def _spares(plan: ClusterPlan) -> list[str]:
    """Nodes that were added later and own no shard."""
    added = [one.id for one in plan.nodes if one.joins]
    answer = processes.ask(plan.nodes[0], "/cluster/shards") if added else None
    if answer is None:
        return []
    owners = {owner for shard in answer[1].get("shards", ()) for owner in shard["owners"]}
    return [one for one in added if one not in owners]
