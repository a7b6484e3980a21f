"""Runs a node as a process, until it is told to end."""

import asyncio
import contextlib
import os
import signal

from node.node import Node
from node.routes import node_routes
from node.settings import Settings
from runtime import failpoints
from runtime.logs import get_logger

log = get_logger(__name__)


async def run_node(settings: Settings, bootstrap: bool = False, join: bool = False) -> None:
    """Runs a node until SIGTERM or SIGINT."""
    failpoints.arm(os.environ)
    node = Node(settings, bootstrap, join)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    await node.start(node_routes)
    try:
        await stopping.wait()
    finally:
        log.info("stopping")
        with contextlib.suppress(asyncio.CancelledError):
            await node.stop()
