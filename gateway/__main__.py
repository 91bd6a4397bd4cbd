"""`python -m gateway` is `eventbus gateway`."""

from eventbus.cli import main

main("gateway")
