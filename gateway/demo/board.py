"""What the demo shows: one line for each step, when it happens, and in the end whether all were seen."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape

STEPS = {
    "redis": "a Redis-protocol server, append-only file on",
    "postgres": "PostgreSQL",
    "migrations": "tables of the bus and of the application",
    "outside": "local stand-ins, real HTTP and SMTP servers, for what is not configured:",
    "gateway": "REST and WebSocket, ready",
    "worker": "the application's groups, consuming",
    "funnel": "a funnel of two steps, with templates of tasks",
    "socket": "the assignee's browser listens",
    "lead": "POST /api/leads: row and event in one transaction",
    "failed": "a handler fails on purpose",
    "retried": "the same event, taken again from the pending list after its backoff",
    "tasks": "task-automation made the tasks of the lead's step",
    "notification": "lead-automation ordered it, notification wrote it, the socket got it",
    "score": "lead.calculate_score",
    "mail": "email.send_submission_confirmation: the mail server took it",
    "next task": "completing a task made the next one",
    "enrichment": "lead.enrich was held back for ten seconds, then asked the provider",
    "timeline": "every event about the lead, and what handled it",
    "agent": "an agent, whose workflow will answer",
    "message": "a question over the socket: queued",
    "outage": "the workflow fails on purpose, and says when to come again",
    "answer": "asked again by itself; the answer came over the socket",
    "history": "question and answer in the conversation, the message completed",
}


class NotSeen(Exception):
    """A step did not happen in time."""


class Board:
    """Steps are ticked off in whatever order they happen; times count from the making of the board."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._began = time.monotonic()
        self._seen: set[str] = set()

    @property
    def missing(self) -> list[str]:
        return [name for name in STEPS if name not in self._seen]

    def seen(self, step: str, detail: str = "") -> None:
        """A step has happened. `detail` is what was observed, not what was hoped for."""
        self._seen.add(step)
        self._line("[green]✔[/]", step, f"{STEPS[step]}" + (f" [cyan]{escape(detail)}[/]" if detail else ""))

    def not_seen(self, step: str, why: str) -> None:
        self._line("[red]✘[/]", step, f"{STEPS[step]} [red]{escape(why)}[/]")

    @contextmanager
    def step(self, step: str) -> Iterator[None]:
        """A failure inside is shown as this step's, and the demo goes on to what does not depend on it."""
        try:
            yield
        except (NotSeen, TimeoutError) as error:
            self.not_seen(step, str(error) or "not seen in time")

    def say(self, text: str) -> None:
        self._console.print(escape(text))

    def summary(self) -> None:
        if self.missing:
            self._console.print(f"\n[red]not seen: {', '.join(self.missing)}[/]")
        else:
            self._console.print(f"\n[green]all {len(STEPS)} steps seen in {time.monotonic() - self._began:.1f} s[/]")

    def _line(self, mark: str, step: str, text: str) -> None:
        self._console.print(f"{mark} {time.monotonic() - self._began:6.2f} s  [bold]{step:<13}[/] {text}")
