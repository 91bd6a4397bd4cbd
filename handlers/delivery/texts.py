"""Long messages in parts that a channel takes."""

BREAKS = ("\n\n", "\n", ". ", " ")  # where to cut, the best first


def parts(text: str, limit: int) -> list[str]:
    """Parts of at most `limit` UTF-16 code units each, as the messengers count; none if there is nothing but blanks.

    The text is cut where a paragraph, a line, a sentence or a word ends, if one ends in the second half of a part."""
    found = []
    rest = text.strip()
    while rest:
        head = _head(rest, limit)
        if len(head) < len(rest):
            head = _cut(head)
        found.append(head.rstrip())
        rest = rest[len(head) :].lstrip()
    return [part for part in found if part]


def _head(text: str, limit: int) -> str:
    """As much of the beginning as fits. Characters beyond the basic plane count twice."""
    head = text[:limit]
    while (excess := len(head) + sum(character > "\uffff" for character in head) - limit) > 0:
        head = head[: -((excess + 1) // 2)]
    return head


def _cut(head: str) -> str:
    for mark in BREAKS:
        place = head.rfind(mark, len(head) // 2)
        if place != -1:
            return head[: place + len(mark)]
    return head
