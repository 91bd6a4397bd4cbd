#!/usr/bin/env bash
# pydantic 2.14.3 writes a datetime whose UTC offset has seconds (local mean time, as zones had before they became whole
# minutes) without those seconds. What is read back is another instant, and nothing says so.
# Expected: the offset whole, as datetime.isoformat writes it (+00:09:21), the time in UTC, or an error.
# Output seen:
#   written  "1900-01-01T12:00:00+00:09"
#   moved by 0:00:21
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check 'pydantic==2.14.3' 'tzdata==2025.2'
seen=$("$folder/venv/bin/python" - <<'PYTHON'
from datetime import datetime
from zoneinfo import ZoneInfo

from pydantic import TypeAdapter

moment = datetime(1900, 1, 1, 12, tzinfo=ZoneInfo("Europe/Paris"))
adapter = TypeAdapter(datetime)
written = adapter.dump_json(moment)
print("written ", written.decode())
print("moved by", adapter.validate_json(written) - moment)
PYTHON
)
echo "$seen"
[ "$seen" = 'written  "1900-01-01T12:00:00+00:09"
moved by 0:00:21' ] || { echo "this has changed" >&2; exit 1; }
