"""What `eventbus audit` says of the counts: since when they are kept, and what they miss."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from eventbus.contract.inspection import SCHEDULE, Account

SHOWN = 10  # spans of time that are told of one group


def in_both(first: Sequence[Account], second: Sequence[Account]) -> list[Account]:
    """The second look, with no more missing than in the first. Where the server has lost count, entries are counted one
    after the other, and one that moves meanwhile may be missed by one look."""
    before = {(account.stream, account.group): account for account in first}
    return [_less(before.get((account.stream, account.group)), account) for account in second]


def _less(before: Account | None, now: Account) -> Account:
    if before is None:
        return replace(now, missing=None if now.missing is None else 0, letters_missing=0)
    missing = None if None in {before.missing, now.missing} else min(before.missing or 0, now.missing or 0)
    return replace(now, missing=missing, letters_missing=min(before.letters_missing, now.letters_missing))


def uncounted(accounts: Sequence[Account]) -> list[str]:
    """A line for each group whose counts do not add up, with the times."""
    told = []
    for one in accounts:
        where = _where(one)
        if (one.missing or 0) > 0:
            how = (
                "being promoted or cancelled (deleted from outside?)"
                if one.group == SCHEDULE
                else "having been settled (deleted, trimmed or acknowledged from outside?)"
            )
            told.append(f"{where}: {one.missing} vanished without {how}: {_when(one)}")
        if one.letters_missing:
            told.append(f"{where}: {one.letters_missing} dead letters vanished (deleted from outside?)")
    return told


def _where(account: Account) -> str:
    return f"{'scheduled' if account.group == SCHEDULE else account.group} on {account.stream}"


def _when(account: Account) -> str:
    """When entries vanished: the latest of the noted gaps, for as many entries as are still missing. What is missing
    beyond the gaps has not been noted yet."""
    left, spans = account.missing or 0, []
    for gap in reversed(account.gaps):
        if left > 0:
            spans.append(f"{min(gap.entries, left)} between {_time(gap.since)} and {_time(gap.until)}")
            left -= gap.entries
    noted = sum(gap.entries for gap in account.gaps)
    if (account.missing or 0) > noted:
        since = max((each for each in (account.looked, account.since) if each is not None), default=None)
        return ", ".join([*reversed(spans[:SHOWN]), f"{(account.missing or 0) - noted} since {_time(since)}"])
    return ", ".join(reversed(spans[:SHOWN]))


def since_when(accounts: Sequence[Account]) -> list[str]:
    """From which moment on the counts can tell that something is missing."""
    begun = [account.since for account in accounts if account.since is not None]
    later = sorted(_where(account) for account in accounts if account.missing is None)
    told = [f"counted since: {_time(min(begun))}"] if begun else []
    if later:
        told.append(f"not counted yet, until they have read on: {', '.join(later)}")
    return told


def as_told(account: Account) -> dict[str, object]:
    """An account, as it is printed as JSON."""
    return {
        "stream": account.stream,
        "group": account.group,
        "since": account.since and account.since.isoformat(),
        "acknowledged": account.acknowledged,
        "buried": account.buried,
        "missing": account.missing,
        "lettersMissing": account.letters_missing,
        "gaps": [
            {"since": gap.since.isoformat(), "until": gap.until.isoformat(), "count": gap.entries}
            for gap in account.gaps
        ],
        "looked": account.looked and account.looked.isoformat(),
    }


def _time(moment: datetime | None) -> str:
    return "the beginning" if moment is None else moment.strftime("%Y-%m-%d %H:%M:%S UTC")
