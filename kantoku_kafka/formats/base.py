"""What every format has in common. Pure."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from kantoku_kafka.errors import EnvelopeError, UsageError
from kantoku_kafka.model import Headers, Result, utf8_safe
from kantoku_kafka.names import is_topic

__all__ = ["ForeignRecord", "ForeignTask", "Format", "checked_headers", "checked_id", "checked_text", "text_of"]

_MOST_ID = 1_000


class ForeignRecord(NamedTuple):
    """A record of a topic that others write."""

    key: bytes | None
    value: bytes | None
    headers: Headers


class ForeignTask(NamedTuple):
    """What a format finds in a record.

    ``id``: what its writer calls it, None if it has no name but its place; ``kind``: what ``types`` chooses by;
    ``headers``: those that the task gets.
    """

    data: bytes
    id: str | None
    kind: str | None
    headers: Headers


@dataclass(frozen=True, kw_only=True)
class Format(ABC):
    """Base of the formats. Immutable, safe in any thread.

    Parameters:
        types: which records of the topic are tasks of this type, by what the format says of what kind they are; others
            are left alone. Default: all. Task types that share a topic name theirs, each different ones.
        since: where to begin in partitions in which the group has committed nothing: with the first record that is
            stamped with this time or a later one; default: the oldest record.
        reply_header: name of the header in which a record may name a topic for its reply; default: none may.
        reply_topics: the topics that it may name; ``*`` at the end of one stands for any rest.

    Raises:
        UsageError: for what cannot be.
    """

    types: Collection[str] = ()
    since: datetime | None = None
    reply_header: str | None = None
    reply_topics: Collection[str] = ()

    def __post_init__(self) -> None:
        for name in ("types", "reply_topics"):
            values = getattr(self, name)
            if isinstance(values, str) or not all(isinstance(value, str) and value for value in values):
                raise UsageError(f"{self._name}: {name} is a list of texts, e.g. ['a', 'b'], not {values!r}.")
            object.__setattr__(self, name, tuple(values))
        if self.since is not None and (not isinstance(self.since, datetime) or self.since.tzinfo is None):
            raise UsageError(f"{self._name}: since is a datetime with a time zone, not {self.since!r}.")
        if (self.reply_header is None) != (not self.reply_topics):
            raise UsageError(
                f"{self._name}: name the reply_header and the reply_topics that it may ask for, or neither."
            )
        for topic in self.reply_topics:
            if not is_topic(topic.removesuffix("*")):
                raise UsageError(f"{self._name}: {topic!r} cannot be a topic, nor the beginning of one.")

    @abstractmethod
    def read(self, record: ForeignRecord) -> ForeignTask:
        """The task in a record. Raises EnvelopeError, and nothing else, if there is none."""

    @abstractmethod
    def write(self, result: Result) -> tuple[bytes, Headers]:
        """Value and headers of the reply that carries a result, which has the headers of its task."""

    def reply_topic(self, headers: Headers) -> str | None:
        """The topic for the reply that a record asks for. Raises EnvelopeError if it may not."""
        if self.reply_header is None:
            return None
        topic = text_of(headers, self.reply_header)
        if topic is None or any(_matches(topic, allowed) for allowed in self.reply_topics):
            return topic
        raise EnvelopeError(
            f"The header {self.reply_header!r} asks for a reply to {topic[:249]!r}, which reply_topics does not allow."
        )

    @property
    def can_write(self) -> bool:
        """Whether it says all that :meth:`write` needs."""
        return True

    @property
    def since_ms(self) -> int | None:
        """``since`` in milliseconds since the epoch."""
        return None if self.since is None else round(self.since.timestamp() * 1_000)

    @property
    def _name(self) -> str:
        return type(self).__name__


def checked_headers(headers: Headers) -> Headers:
    """The headers, if they can be written: whoever made them may be the user's own. Raises TypeError or ValueError."""
    found = tuple(headers)
    for name, value in found:
        name.encode()
        if not isinstance(value, bytes | None):
            raise TypeError(f"header {name!r} is a {type(value).__name__}")
    return found


def _matches(topic: str, allowed: str) -> bool:
    if allowed.endswith("*"):
        return topic.startswith(allowed[:-1]) and is_topic(topic)
    return topic == allowed


def text_of(headers: Headers, name: str) -> str | None:
    """The text of a header, of several the last; None if there is none. Raises EnvelopeError if it is no text."""
    for found, value in reversed(headers):
        if found == name:
            try:
                return checked_id(f"The header {name!r}", (value or b"").decode())
            except UnicodeDecodeError:
                raise EnvelopeError(f"The header {name!r} is not UTF-8.") from None
    return None


def checked_id(what: str, text: str) -> str:
    """The text, if it may be an id or a name. Raises EnvelopeError."""
    if not 0 < len(text) <= _MOST_ID:
        raise EnvelopeError(f"{what} has {len(text)} characters; it may have 1 to {_MOST_ID}.")
    return checked_text(what, text)


def checked_text(what: str, text: str) -> str:
    """The text, if UTF-8 can carry it. Raises EnvelopeError."""
    if utf8_safe(text) != text:
        raise EnvelopeError(f"{what} holds a lone surrogate, which UTF-8 cannot carry.")
    return text
