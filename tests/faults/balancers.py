"""Balancers in front of gateways, as they run in front of them elsewhere: haproxy, which asks each for its health, and
nginx, which is told by its operator. Neither sends a request anywhere else once it was refused."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest

from eventbus.embedded.ports import free_port
from tests.waiting import PATIENCE, eventually, until

HAPROXY = """
defaults
    mode http
    timeout connect {patience}s
    timeout client {patience}s
    timeout server {patience}s
    timeout check {patience}s
    retries 0
    http-reuse always

listen gateways
    bind 127.0.0.1:{port}
    option httpchk GET /readyz
    default-server check inter 200ms fall 2 rise 1
{servers}

listen statistics
    bind 127.0.0.1:{statistics}
    stats enable
    stats uri /
"""

NGINX = """
{user}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream gateways {{
{servers}
        keepalive 16;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://gateways;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_next_upstream off;
        }}
    }}
}}
"""


class Haproxy:
    """`url`: where it takes requests for the gateways at these ports."""

    def __init__(self, folder: Path, ports: Sequence[int]) -> None:
        self._folder, self._ports = folder, list(ports)
        self._port, self._statistics = free_port(), free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Returns when it has found all of them well."""
        path = self._folder / "haproxy.cfg"
        servers = "\n".join(f"    server gateway-{port} 127.0.0.1:{port}" for port in self._ports)
        values = {"port": self._port, "statistics": self._statistics, "patience": int(PATIENCE)}
        path.write_text(HAPROXY.format(servers=servers, **values), encoding="utf-8")
        self._process = started(self._folder, "haproxy", "-db", "-f", str(path))
        for port in self._ports:
            await self._until(port, check_status="L7OK", status="UP")

    async def leave_out(self, port: int) -> None:
        """Nobody tells it. Returns when its checks have, and the gateway has no request of it any more."""
        await self._until(port, status="DOWN", scur="0")

    async def _until(self, port: int, **wanted: str) -> None:
        async def so() -> bool:
            found = await self._state(port)
            return wanted.items() <= found.items()

        await eventually(so)

    async def _state(self, port: int) -> dict[str, str]:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "haproxy.log").read_text(encoding="utf-8")
        with suppress(aiohttp.ClientConnectionError):
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://127.0.0.1:{self._statistics}/;csv") as answer,
            ):
                names, *rows = [line.split(",") for line in (await answer.text()).removeprefix("# ").splitlines()]
                return next(dict(zip(names, row, strict=False)) for row in rows if row[1] == f"gateway-{port}")
        return {}

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class Nginx:
    """`url`: where it takes requests for the gateways at these ports."""

    def __init__(self, folder: Path, ports: Sequence[int]) -> None:
        self._folder, self._ports = folder, list(ports)
        self._port = free_port()
        self._path = folder / "nginx.conf"
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Returns when it answers."""
        self._configure()
        self._process = started(self._folder, "nginx", "-c", str(self._path), "-e", str(self._folder / "error.log"))

        async def answers() -> bool:
            with suppress(aiohttp.ClientConnectionError):
                async with aiohttp.ClientSession() as session, session.get(f"{self.url}/livez") as answer:
                    return answer.status == 200
            assert self._process is not None
            assert self._process.poll() is None, (self._folder / "nginx.log").read_text(encoding="utf-8")
            return False

        await eventually(answers)

    async def leave_out(self, port: int) -> None:
        """What an operator does. Returns when whoever knew that gateway has ended its requests and itself."""
        assert self._process is not None
        self._ports.remove(port)
        self._configure()
        before = self._workers()
        self._process.send_signal(1)  # SIGHUP: other workers, with what stands in the file now
        await until(lambda: self._workers() and not self._workers() & before)

    def _configure(self) -> None:
        servers = "\n".join(f"        server 127.0.0.1:{port};" for port in self._ports)
        user = "user root;" if os.geteuid() == 0 else ""  # else its workers may not enter the folder
        told = NGINX.format(user=user, folder=self._folder, port=self._port, servers=servers)
        self._path.write_text(told, encoding="utf-8")

    def _workers(self) -> set[str]:
        assert self._process is not None
        pid = self._process.pid
        return set(Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split())

    def end(self) -> None:
        if self._process is not None:
            self._process.terminate()  # kills its workers, too
            self._process.wait()


def started(folder: Path, program: str, *arguments: str) -> "subprocess.Popen[bytes]":
    """What it prints goes to a file of its name."""
    found = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin")  # Debian keeps it from other users' PATH
    if found is None:
        pytest.fail(f"{program} is not on PATH: apt-get install {program} (.ci/run does)", pytrace=False)
    with (folder / f"{program}.log").open("wb") as output:
        return subprocess.Popen([found, *arguments], stdout=output, stderr=output)


Balancer = Haproxy | Nginx
