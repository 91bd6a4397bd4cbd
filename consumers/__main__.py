"""`python -m consumers` is `eventbus worker`."""

import sys

import typer

from eventbus import EventBusError
from eventbus.cli.screen import report
from eventbus.cli.worker import worker

try:
    typer.run(worker)
except EventBusError as error:
    sys.exit(report(error))
