#!/usr/bin/env bash
# redis-py 8.1.0, asyncio, on uvloop 0.23.0: a server that hangs up while the client greets it. The client writes to a
# connection that is closed by then, where uvloop raises a RuntimeError ("unable to perform operation on …; the handler
# is closed"), and redis-py hands that on as it is. Its retries do not see it, nor does a program that catches RedisError
# and OSError, as one does around a connection.
# Expected: redis.exceptions.ConnectionError, as on asyncio's own loop.
# Seen with hiredis 3.5.0, of 400 pings to a server that hangs up after none to seven turns of the loop:
#   uvloop: some end in a RuntimeError, all others in a ConnectionError
#   asyncio: all end in a ConnectionError
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    'redis==8.1.0' 'hiredis==3.5.0' 'uvloop==0.23.0'
cat >"$folder/pings.py" <<'PYTHON'
import asyncio
import sys
from collections import Counter

import uvloop
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff


async def main() -> Counter[str]:
    turns = 0

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _turn in range(turns):
            await asyncio.sleep(0)
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    seen: Counter[str] = Counter()
    for number in range(400):
        turns = number % 8
        client = Redis(port=port, protocol=2, retry=Retry(NoBackoff(), 0))
        try:
            await client.ping()
        except Exception as error:
            seen[type(error).__name__] += 1
        try:
            await client.aclose()
        except Exception:
            pass
    server.close()
    return seen


run = uvloop.run if sys.argv[1] == "uvloop" else asyncio.run
seen = run(main())
print(*(f"{name}={count}" for name, count in sorted(seen.items())))
sys.exit(0 if (seen["RuntimeError"] > 0) == (sys.argv[1] == "uvloop") and seen["ConnectionError"] > 0 else 1)
PYTHON
for loop in uvloop asyncio; do
    "$folder/venv/bin/python" "$folder/pings.py" "$loop" || { echo "this has changed" >&2; exit 1; }
done
