"""What a run shows on stderr while it goes on."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

REFRESHES = 2  # a second: drawing takes time from what is measured


class Screen:
    """A bar for the whole run and one for the step; a line for each step that came to nothing. See runner.Watcher."""

    def __init__(self, steps: int) -> None:
        columns = (TextColumn("{task.description:<48}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bars = Progress(*columns, console=Console(stderr=True), refresh_per_second=REFRESHES)
        self._whole = self._bars.add_task("all steps", total=steps)
        self._step = self._bars.add_task("", total=None)
        self._label = ""

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def begin(self, label: str) -> None:
        self._label = label
        self._bars.reset(self._step, description=label, total=None)

    def progress(self, done: int, total: int) -> None:
        self._bars.update(self._step, completed=done, total=total or None)

    def end(self, failed: str | None) -> None:
        if failed:
            self._bars.console.print(f"{self._label}: {failed}", style="yellow", markup=False, highlight=False)
        self._bars.advance(self._whole)
