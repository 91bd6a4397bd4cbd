"""A gateway meets what nobody would send: every documented operation, with what its document allows and what not.

No answer may be a 5xx, or one that the document does not know: status, content type, headers, body.
"""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.callers.auth import make_token
from tests.gateway.client import SECRET
from tests.gateway.test_process import environment  # noqa: F401 - a fixture
from tests.lines import whole_lines
from tests.waiting import eventually

EXAMPLES, SEED = 3, 20261122  # of each operation in the fuzzing phase
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "ignored_auth",
)
ENOUGH = 800  # requests: fewer would say that something was left out


@asynccontextmanager
async def serving(settings: Mapping[str, str], log: Path) -> AsyncIterator[str]:
    """Its URL. It writes into a file: nobody reads a pipe meanwhile."""
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", "gateway", env=settings, stderr=file)
        try:

            async def listening() -> bool:
                return any(line["event"] == "listening" for line in lines(log))

            await eventually(listening)
            [port] = [line["port"] for line in lines(log) if line["event"] == "listening"]
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            assert await process.wait() == 0


def lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in whole_lines(log)]


@pytest.mark.timeout(600)
async def test_nothing_that_is_sent_is_answered_with_what_is_not_documented(
    environment: dict[str, str],  # noqa: F811 - it is a fixture
    tmp_path: Path,
) -> None:
    log = tmp_path / "gateway.log"
    async with serving(environment | {"EVENTBUS_RATE_LIMIT": "off"}, log) as url:
        code, screen = await fuzz(url, tmp_path)
    assert code == 0, screen
    told = lines(log)
    assert [line for line in told if line["level"] == "error"] == []
    assert len([line for line in told if line["event"] == "request"]) > ENOUGH
    found = re.search(r"Operations: +(\d+) selected / (\d+) total", screen)
    assert found is not None, screen
    assert found[1] == found[2]


async def fuzz(url: str, folder: Path) -> tuple[int, str]:
    """The exit code, and what is on the screen. What it wants to remember stays in the folder."""
    token = make_token(SECRET, user="ann", organization="acme", roles=frozenset({"admin", "system", "user"}))
    command = [
        *("-m", "schemathesis.cli", "run", f"{url}/openapi.json", "--no-color", "--continue-on-failure"),
        *(
            "--header",
            f"Authorization: Bearer {token}",
            "--checks",
            ",".join(CHECKS),
            "--phases",
            "examples,coverage,fuzzing",
        ),
        *("--max-examples", str(EXAMPLES), "--seed", str(SEED), "--no-shrink"),
        "--generation-deterministic",
    ]
    run = await asyncio.create_subprocess_exec(
        sys.executable, *command, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    screen, _ = await run.communicate()
    assert run.returncode is not None
    return run.returncode, screen.decode()
