"""Finding groups by import path."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from eventbus import ConfigurationError, Group
from eventbus.operating.apps import App, AppNotFound, choose, installed_apps, load_app
from handlers import GROUPS

HEAD = "from eventbus import Group\n"

Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes modules into a working directory of the test's own; they are forgotten after it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))

    def write(path: str, text: str) -> None:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(HEAD + text)

    return write


def names(app: App) -> list[str]:
    return [group.name for group in app.groups]


def test_a_module_s_groups_in_their_order(write: Write, tmp_path: Path) -> None:
    write("plain.py", "b = Group('b')\na = Group('a')\nalias = b\n")
    app = load_app("plain")
    assert (names(app), app.source) == (["b", "a"], tmp_path / "plain.py")


def test_a_list_called_groups_has_the_last_word(write: Write, tmp_path: Path) -> None:
    write("package/__init__.py", "")
    write("package/events.py", "a = Group('a')\nb = Group('b')\nGROUPS = [b]\n")
    app = load_app("package.events")
    assert (names(app), app.source) == (["b"], tmp_path / "package")


def test_an_attribute_is_a_group_or_a_list_of_them(write: Write) -> None:
    write("named.py", "a = Group('a')\nboth = (a, Group('b'))\nnone = []\nnumber = 3\n")
    assert (names(load_app("named:a")), names(load_app("named:both"))) == (["a"], ["a", "b"])
    for path, words in {
        "named:none": "holds no groups",
        "named:number": "found int",
        "named:c": "has no 'c'; it has a",
        "named:": "neither 'module' nor 'module:attribute'",
        "named/a": "neither",
        "named.inner": r"no module named\.inner",
        "nowhere.at.all": "no module nowhere,",
    }.items():
        with pytest.raises(AppNotFound, match=words):
            load_app(path)


def test_what_the_module_itself_lacks_is_its_own_error(write: Write) -> None:
    write("lacking.py", "import nothing_of_that_name\n")
    write("wanting/__init__.py", "import nothing_of_that_name\n")
    write("wanting/events.py", "")
    for path in ("lacking", "wanting.events"):
        with pytest.raises(ModuleNotFoundError, match="nothing_of_that_name"):
            load_app(path)


def test_the_installed_application_is_the_crm() -> None:
    assert [(app.name, app.groups) for app in installed_apps()] == [("crm", GROUPS)]


def test_none_named_is_all() -> None:
    assert choose(installed_apps(), []) == GROUPS


def test_each_named_once_in_the_order_of_the_names() -> None:
    chosen = choose(installed_apps(), ["notification", "lead", "notification"])
    assert [group.name for group in chosen] == ["notification", "lead"]


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(
        ConfigurationError, match=r"called leads; there are .*lead, lead-automation, .*notification, task-automation"
    ):
        choose(installed_apps(), ["lead", "leads"])


def test_of_two_groups_of_one_name_neither_runs() -> None:
    one, two, other = Group("one"), Group("one"), Group("other")
    apps = [App("first", [one, other], Path()), App("second", [other, two], Path())]
    with pytest.raises(ConfigurationError, match="share a name: one; rename"):
        choose(apps)
    with pytest.raises(AppNotFound, match="no groups in first"):
        choose([App("first", [], Path())])
