"""Doctor tries all that is used. Whether its rules are enough for that: tests/integration/test_restricted_user.py."""

import re
from importlib.resources import files

from eventbus.redis.rights import probes_of

CALLED = re.compile(r"redis\.p?call\('([A-Z]+)'")


def test_every_command_of_a_script_is_tried() -> None:
    scripts = [path.read_text() for path in (files("eventbus.redis") / "scripts").iterdir() if path.name[-4:] == ".lua"]
    called = {name for script in scripts for name in CALLED.findall(script)}
    tried = {str(probe[0]) for probe in probes_of("eb", 0)}
    assert len(called) > 40
    assert called <= tried
