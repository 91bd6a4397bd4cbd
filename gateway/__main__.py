"""`python -m gateway` is `eventbus gateway`."""

import sys

import typer

from eventbus import EventBusError
from eventbus.cli.screen import report
from gateway.cli import gateway

try:
    typer.run(gateway)
except EventBusError as error:
    sys.exit(report(error))
