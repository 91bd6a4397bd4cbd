"""A publisher process of the fault tests: `python -m tests.faults.publisher FIRST LAST`."""

import os
import sys

from eventbus import EventBus
from eventbus.process.logs import configure
from eventbus.process.loop import run
from tests.faults import jobs
from tests.faults.history import History


async def main(first: int, last: int) -> None:
    history = History(jobs.history_path())
    async with EventBus(os.environ["FAULTS_REDIS"]) as bus:
        for token in range(first, last + 1):
            history.record("publish invoked", token=token)
            await bus.publish(jobs.Job(token=token), key=str(token))
            history.record("publish ok", token=token)


if __name__ == "__main__":
    configure("json")
    run(main(int(sys.argv[1]), int(sys.argv[2])))
