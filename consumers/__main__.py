"""`python -m consumers` is `eventbus worker`."""

from eventbus.cli import main

main("worker")
