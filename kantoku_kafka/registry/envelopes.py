"""Our envelopes in the forms of a schema registry: the body is the same Avro, only what stands before it differs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kantoku_kafka.avro import schemas
from kantoku_kafka.avro.codec import AvroCodec
from kantoku_kafka.avro.framing import Form, Frame, Mark, joined, marked, split
from kantoku_kafka.errors import EnvelopeError, NotFound, TopicMismatch, UsageError
from kantoku_kafka.job import Job
from kantoku_kafka.model import VALUE_SCHEMA_ID, Event, Result, TaskEnvelope
from kantoku_kafka.names import Topics
from kantoku_kafka.registry.client import Registered, Registry

__all__ = ["RegistryCodec", "schemas_of", "subject_of"]

_PATIENCE_SECONDS, _IMPATIENCE_SECONDS = 3.0, 60.0
_ASK_AGAIN_SECONDS = 0.2


def subject_of(topic: str) -> str:
    """Under which the schema of a topic's values stands: the strategy that serializers call TOPIC."""
    return f"{topic}-value"


def schemas_of(topics: Topics, inputs: Iterable[str]) -> dict[str, str]:
    """The topics that may be written in a form of the registry, and the names of their schemas."""
    return {topics.results: "Result", topics.events: "Event", **dict.fromkeys(inputs, "Task")}


class RegistryCodec(AvroCodec):
    """Reads our own form, and both of the registry's; writes our own, which :class:`~kantoku_kafka.avro.framing.Frame`
    changes where records leave. Thread-safe.

    A schema that is unknown here is asked for, once. While it is not in the registry it is waited for, 3 s at most and
    not again for a minute: another server of the registry may have it first.

    Every ``decode_*`` raises besides EnvelopeError: RegistryUnavailable, AccessDenied and UsageError, where the
    registry has to be asked. The record may be good then.

    Parameters:
        registry: where the schemas are.
        patience_seconds: how long a schema is waited for.
        at_start: an executor asks the registry when it starts; else when a record names a schema.
    """

    def __init__(
        self, registry: Registry, *, patience_seconds: float = _PATIENCE_SECONDS, at_start: bool = True
    ) -> None:
        super().__init__()
        self.registry = registry
        self.at_start = at_start
        self._patience_seconds = patience_seconds
        self._patient_from = 0.0
        self._headers: dict[Mark, bytes] = {}
        self._frames: dict[str, Frame] | None = None
        self._lock = threading.Lock()

    def peek_task(self, value: bytes) -> tuple[str, str, bytes, int, TaskEnvelope | None]:
        return super().peek_task(self.own(value))

    def decode_task(self, value: bytes) -> TaskEnvelope:
        return super().decode_task(self.own(value))

    def decode_result(self, value: bytes) -> Result:
        return super().decode_result(self.own(value))

    def decode_event(self, value: bytes) -> Event:
        return super().decode_event(self.own(value))

    def own(self, value: bytes) -> bytes:
        """A (joined) value in our own form; as it is, if it is in neither of the registry's."""
        if value.startswith(schemas.MARKER):
            return value
        try:
            mark, body = split(value)
        except EnvelopeError:
            return value
        return self._header(mark) + body

    def read(self, job: Job) -> bool:
        """A :class:`~kantoku_kafka.protocols.TaskReader` of our own inputs: the job goes on in our own form.

        What cannot be read stays as it is, for its dead letter.
        """
        if not job.value.startswith(schemas.MARKER):
            value = self.own(joined(job.value, job.raw_headers))
            super().peek_task(value)
            job.value = value
            job.raw_headers = [header for header in job.raw_headers or () if header[0] != VALUE_SCHEMA_ID]
        return True

    def frames(self, topics: Topics, inputs: Iterable[str]) -> Mapping[str, Frame]:
        """By topic, how its values are framed that are written in a form of the registry. Raises as :meth:`open`."""
        return self.open(topics, inputs) if self.registry.envelopes else {}

    def open(self, topics: Topics, inputs: Iterable[str]) -> Mapping[str, Frame]:
        """Ask the registry, once, what is registered for our topics: it is known then. Answers as :meth:`frames`.

        Raises:
            TopicMismatch: a topic is to be written in a form whose schema is not registered.
            UsageError: the registry was given the form of a topic that there is not.
            RegistryUnavailable, AccessDenied.
        """
        with self._lock:
            if self._frames is None:
                forms = _forms(self.registry.envelopes, topics, inputs)
                every = dict.fromkeys(forms, "Task") | schemas_of(topics, inputs)
                found = {topic: self._frame(topic, name, forms.get(topic)) for topic, name in every.items()}
                self._frames = {topic: frame for topic, frame in found.items() if frame is not None}
            return self._frames

    def _frame(self, topic: str, schema_name: str, form: Form | None) -> Frame | None:
        """How a topic is written; None: in our own form. What is registered for it is known here from then on."""
        subject, schema = subject_of(topic), schemas.load(f"{schema_name}.avsc")
        try:
            registered = self.registry.find(subject, schemas.text(f"{schema_name}.avsc"))
        except NotFound as error:
            if form is None:
                return None
            raise TopicMismatch(
                f"Topic {topic} is to be written in form {form.value!r}, and its schema {schema_name} is not "
                f"registered under subject {subject}: kantoku-kafka schemas register."
            ) from error
        header = schemas.MARKER + schemas.fingerprint_of(schema)
        self._headers[registered.id] = header
        if registered.guid is not None:
            self._headers[registered.guid] = header
        return None if form is None else Frame(header, form, _mark(registered, form, topic, self.registry))

    def _header(self, mark: Mark) -> bytes:
        """What our own form has in the place of a mark. Raises EnvelopeError, and what the registry does."""
        header = self._headers.get(mark)
        if header is None:
            self.registry.connect()  # what it may raise is not the record's fault
            try:
                schema = self._awaited(lambda: self.registry.schema(mark))
                header = self._headers[mark] = schemas.MARKER + schemas.fingerprint_of(schema.parsed)
            except UsageError as error:
                raise EnvelopeError(f"The record's schema {mark} is none of ours: {error}") from error
            except NotFound as error:
                raise EnvelopeError(f"The record names a schema that is not known. {error}") from error
        return header

    def _awaited(self, ask: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + self._patience_seconds
        while True:
            try:
                return ask()
            except NotFound:
                now = time.monotonic()
                if now < self._patient_from:
                    raise
                if now > deadline:
                    self._patient_from = now + _IMPATIENCE_SECONDS
                    raise
            time.sleep(_ASK_AGAIN_SECONDS)


def _forms(envelopes: Mapping[str, Form], topics: Topics, inputs: Iterable[str]) -> dict[str, Form]:
    forms = {}
    for role, form in envelopes.items():
        if role in ("results", "events"):
            forms[getattr(topics, role)] = form
        elif role == "tasks":
            forms |= {topic: forms.get(topic, form) for topic in inputs}
        elif role.startswith("tasks."):
            forms[topics.of_type(role.removeprefix("tasks."))] = form
        else:
            raise UsageError(
                f"Registry: {role!r} in envelopes is no topic that can be written so; there are results, events, tasks "
                "and tasks.TYPE."
            )
    return forms


def _mark(registered: Registered, form: Form, topic: str, registry: Registry) -> bytes:
    if form is Form.WIRE:
        return marked(registered.id)
    if registered.guid is None:
        raise TopicMismatch(
            f"Topic {topic} is to be written in form 'header', which names schemas by GUIDs, and {registry!r} tells "
            "none (Confluent's does since 8.0): take 'wire'."
        )
    return marked(registered.guid)
