"""Pictures and tables of a run, and their place in benchmarks/README.md."""

import os
from pathlib import Path

from benchmarks.reporting.tables import markdown
from benchmarks.running.outcome import FOLDER, Outcome

README = FOLDER.parent / "README.md"
BEGIN, END = "<!-- results: written by `python -m benchmarks report` -->", "<!-- /results -->"


def draw(outcome: Outcome, folder: Path) -> list[Path]:
    """The pictures; raises ModuleNotFoundError where matplotlib is not installed."""
    from benchmarks.reporting import plots  # noqa: PLC0415 - measuring does without matplotlib

    return plots.draw(outcome, folder)


def text(outcome: Outcome, pictures: list[Path], beside: Path) -> str:
    """The tables, each suite's picture below its heading; paths as seen from the folder `beside`."""
    lines = markdown(outcome)
    for picture in pictures:
        heading = f"### {picture.stem.capitalize()}\n\n"
        place = Path(os.path.relpath(picture, beside)).as_posix()
        lines = lines.replace(heading, f"{heading}![{picture.stem}, as in the table below]({place})\n\n")
    return lines


def put_into(readme: Path, results: str) -> None:
    """Replace what stands between the markers. Raises ValueError if they are not there."""
    page = readme.read_text(encoding="utf-8")
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{readme} has no place for results: it needs the lines {BEGIN} and {END}")
    readme.write_text(f"{before}{BEGIN}\n\n{results}\n{END}{after}", encoding="utf-8")
