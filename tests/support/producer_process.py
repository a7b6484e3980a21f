"""A process that sends numbered rows through one producer with a buffer file; made to be killed.

Arguments: buffer file, service, number of rows, addresses. Row n has seq n; after a crash it goes on
behind the last row that its buffer kept. Prints the last number taken now and then, in the end `done`.
"""

import asyncio
import sys
from pathlib import Path

from quorumlog import Producer


async def main() -> None:
    """Sends what the buffer does not hold yet, and waits for all acks."""
    buffer, service, count, *urls = sys.argv[1:]
    async with Producer(urls, service, Path(buffer), linger_seconds=0.01) as producer:
        while producer.last_seq < int(count):
            producer.send(message=f"row {producer.last_seq + 1}")
            if producer.last_seq % 20 == 0:
                await asyncio.sleep(0.005)
            if producer.last_seq % 100 == 0:
                print(producer.last_seq, flush=True)
        await producer.flush()
        print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
