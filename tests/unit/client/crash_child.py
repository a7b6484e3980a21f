"""A producer process for `test_crash`: sends numbered rows until it is killed."""

from __future__ import annotations

import asyncio
import sys

from quorumlog import Producer


async def main(url: str, path: str, first: int) -> None:
    """Rows `n=first, first+1, …`; a line on stdout after each hundred."""
    async with Producer([url], "pay", path, batch_rows=50, linger_seconds=0.001) as producer:
        number = first
        while True:
            for _ in range(20):
                producer.send(message="m", n=number)
                number += 1
            print(number, flush=True)
            await asyncio.sleep(0.001)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
