"""`python -m consumers` is `eventbus worker`."""

import sys

import typer

from consumers.cli import worker
from eventbus import EventBusError
from eventbus.cli.screen import report

try:
    typer.run(worker)
except EventBusError as error:
    sys.exit(report(error))
