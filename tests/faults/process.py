"""A worker process of the fault tests: `python -m tests.faults.process`, with --batches for a handler of batches,
--history for the group that records what passes, --hasty for a short grace, and --alone for the jobs and nothing beside
them: no other group, and no relay."""

import os
import resource
import sys
from datetime import timedelta

from eventbus import EventBus, Worker
from eventbus.process.logs import configure
from eventbus.process.loop import run
from eventbus.roles.history_group import recorder
from tests.faults import jobs
from tests.faults.history import History
from tests.faults.ticking import clock

MEMORY = 3 * 2**28  # bytes of address space: what hoards gets a MemoryError, and the machine stays alive


async def main() -> None:
    history = History(jobs.history_path())
    url, database = os.environ["FAULTS_REDIS"], os.environ["FAULTS_DATABASE"]
    kept = timedelta(days=365) if "--history" in sys.argv else None
    async with EventBus(url, database=database, history=kept) as bus:
        group = jobs.batches(history) if "--batches" in sys.argv else jobs.group(history)
        ticking = [clock(history)] if os.environ.get("FAULTS_TICKS") else []
        grace = 0.5 if "--hasty" in sys.argv else 10
        recording = [recorder(lease=jobs.LEASE)] if kept is not None else []
        alone = "--alone" in sys.argv
        others = [] if alone else [jobs.notes(history), *ticking]
        worker = Worker(bus, [group, *others, *recording], grace=grace, relay=not alone)
        history.record("started")
        await worker.run()
    history.record("stopped")


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    configure("json")
    run(main())
