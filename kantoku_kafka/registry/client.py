"""A schema registry that speaks Confluent's API, over confluent-kafka's own client, and what its errors mean for us."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from kantoku_kafka.avro.framing import Form, Mark, marked
from kantoku_kafka.avro.safe import SafeSchema
from kantoku_kafka.configuration.masks import REGISTRY_PREFIX
from kantoku_kafka.errors import AccessDenied, KantokuError, NotFound, RegistryUnavailable, TopicMismatch, UsageError
from kantoku_kafka.one_thread import OneThread
from kantoku_kafka.registry.connecting import LONGEST_SECONDS, USER_INFO, connected, without_user_info
from kantoku_kafka.settings import choice

__all__ = ["Registered", "Registry"]

T = TypeVar("T")
_UNKNOWN = frozenset({40401, 40402, 40403})  # a subject, a version, a schema
_REFUSED = frozenset({409, 422})
_DENIED = frozenset({401, 403})


class Registered(NamedTuple):
    """A schema under a subject: its id, its GUID if the registry has such, and its version."""

    id: int
    guid: UUID | None
    version: int | None
    schema: SafeSchema


class Registry:
    """A schema registry. Connects at first use and keeps what it was told. Thread-safe.

    Needs the extra ``registry``. Schemas are registered by ``kantoku-kafka schemas register`` and nothing else.

    Parameters:
        url: ``http[s]://[user:password@]host[:port][/path]``; of several with commas between them, the next one is
            asked where one does not answer.
        config: further settings of confluent-kafka's ``SchemaRegistryClient``, as ``ssl.ca.location``,
            ``basic.auth.user.info`` (``user:password``), or ``bearer.auth.credentials.source`` with what that one
            needs: ``STATIC_TOKEN``, ``bearer.auth.token`` and ``bearer.auth.logical.cluster``. Secrets may be
            references, as ``${env:NAME}``; they are looked up when it connects.
        envelopes: the topics that an app writes in a form of the registry, ``wire`` or ``header``: by ``results``,
            ``events``, ``tasks.{type}``, as in ``Kantoku(topics=...)``, or ``tasks`` for all inputs. Default: none.
            What others write so is read in either form, whatever this says.
        timeout_seconds: how long the registry may take to connect, and to answer; default 5. One URL is tried three
            times, each of several once; after 8 s in all it has given no answer.

    Raises:
        UsageError: for a URL or a form that cannot be.
    """

    def __init__(
        self,
        url: str,
        *,
        config: Mapping[str, Any] | None = None,
        envelopes: Mapping[str, Form | str] | None = None,
        timeout_seconds: float = 5.0,
    ) -> None:
        self._config: dict[str, Any] = {}
        self._of_url: dict[str, Any] = {}  # whom the URL names; another one names somebody else
        self.connect_to({**(config or {}), "url": url})
        self.envelopes = {role: choice(Form, "form", form) for role, form in (envelopes or {}).items()}
        self._timeout_seconds = timeout_seconds
        self._lock = threading.Lock()
        self._made: Any = None
        self._schemas: dict[Mark, SafeSchema] = {}

    def connect_to(self, settings: Mapping[str, Any]) -> None:
        """Use these, ``url`` and those of ``config``, from now on; only before the first use. Raises UsageError."""
        config = dict(settings)
        if "url" in config:
            self.url, user_info = without_user_info(str(config.pop("url")))
            if user_info and USER_INFO in config:
                raise UsageError(f"The registry's URL names a user, and so does {USER_INFO}: leave one of them out.")
            self._of_url = {USER_INFO: user_info} if user_info else {}
            if user_info:
                self._config.pop(USER_INFO, None)
        self._config |= config

    def __repr__(self) -> str:
        return f"Registry({self.url!r})"

    @property
    def settings(self) -> dict[str, Any]:
        """All settings, as files of properties name them; secrets as they are."""
        settings = {"url": self.url, **self._of_url, **self._config}
        return {f"{REGISTRY_PREFIX}{key}": value for key, value in settings.items()}

    def close(self) -> None:
        """Let go of the connection; another use makes a new one."""
        with self._lock:
            made, self._made = self._made, None
        if made is not None:
            made.close()

    def connect(self) -> None:
        """Make what it takes to ask, and ask nothing. Raises UsageError: the settings cannot be."""
        self._client()

    def schema(self, mark: Mark) -> SafeSchema:
        """The schema of an id or a GUID.

        Raises:
            NotFound: the registry has none (yet: another one of its servers may).
            UsageError: it is no Avro schema, or none that is safe to read by.
            RegistryUnavailable, AccessDenied.
        """
        known = self._schemas.get(mark)
        if known is None:
            client, what = self._client(), f"schema {mark}"
            get = client.get_schema if isinstance(mark, int) else client.get_schema_by_guid
            name = mark if isinstance(mark, int) else str(mark)
            known = self._schemas[mark] = self._ask(what, lambda: self._safe(get(name), what))
        return known

    def find(self, subject: str, schema: str) -> Registered:
        """What a schema is registered as under a subject.

        Raises:
            NotFound: it is not.
            RegistryUnavailable, AccessDenied, UsageError.
        """
        client, wanted = self._client(), self._schema_of(schema)
        what = f"the schema of subject {subject}"

        def look_up() -> Any:
            try:
                return self._asked(what, lambda: client.lookup_schema(subject, wanted))
            except NotFound:  # as it stands; perhaps in other words
                return client.lookup_schema(subject, wanted, normalize_schemas=True)

        return self._registered(self._ask(what, look_up), SafeSchema(schema), what)

    def latest(self, subject: str) -> Registered:
        """The newest schema under a subject. Raises as :meth:`find`."""
        client, what = self._client(), f"subject {subject}"

        def get() -> Registered:
            found = client.get_latest_version(subject)
            return self._registered(found, self._safe(found.schema, what), what)

        try:
            return self._ask(what, get)
        except UsageError as error:
            raise UsageError(f"The newest schema under subject {subject} is none for us: {error}") from error

    def register(self, subject: str, schema: str) -> Registered:
        """Put a schema under a subject; nothing happens if it is there.

        Raises:
            TopicMismatch: it is not compatible with what stands there.
            RegistryUnavailable, AccessDenied, UsageError.
        """
        client, wanted, what = self._client(), self._schema_of(schema), f"subject {subject}"
        found = self._ask(what, lambda: client.register_schema_full_response(subject, wanted))
        return self._registered(found, SafeSchema(schema), what)

    def is_compatible(self, subject: str, schema: str) -> bool:
        """Whether the rules of a subject take a schema as its next. Raises as :meth:`find`; NotFound: no subject."""
        client, wanted = self._client(), self._schema_of(schema)
        return bool(self._ask(f"subject {subject}", lambda: client.test_compatibility_all_versions(subject, wanted)))

    def _client(self) -> Any:
        with self._lock:
            if self._made is None:
                settings = {**self._of_url, **self._config}
                self._made = connected(self.url, settings, self._timeout_seconds)
            return self._made

    def _ask(self, what: str, ask: Callable[[], T]) -> T:
        """All that it takes to answer; its client bounds neither names nor an answer that drips."""
        thread = OneThread("kantoku-registry")  # one for each call: one that hangs must not hold up the next
        future = thread.submit(lambda: self._asked(what, ask))
        thread.close()
        error: BaseException | None
        try:
            error = future.exception(LONGEST_SECONDS)
        except TimeoutError:
            self.close()  # what hangs ends by that
            error = self._no_answer(what, f"within {LONGEST_SECONDS:g} s")
        if error is not None:
            raise error
        return future.result()

    def _asked(self, what: str, ask: Callable[[], T]) -> T:
        from confluent_kafka.schema_registry.error import OAuthTokenError, SchemaRegistryError

        try:
            return ask()
        except SchemaRegistryError as error:
            raise self._refusal(error, what) from error
        except OAuthTokenError as error:
            raise self._no_token(error.__context__) from error
        except KantokuError:
            raise
        except Exception as error:  # of the network, of TLS, of an answer that is none
            if _is_caused_by(error, ssl.SSLCertVerificationError):
                raise AccessDenied(
                    f"The certificate of the schema registry at {self.url} is not trusted: set ssl.ca.location in its "
                    "config to a file with the authority's."
                ) from error
            raise self._no_answer(what, type(error).__name__) from error

    def _refusal(self, error: Any, what: str) -> KantokuError:
        status, said = error.http_status_code, " ".join(str(error.error_message).split())[:300]
        if status in _DENIED:
            return AccessDenied(
                f"The schema registry at {self.url} denies access to {what} (HTTP {status}): give it a user or token "
                "that may, by its config."
            )
        if error.error_code in _UNKNOWN or (status == HTTPStatus.NOT_FOUND and self._is_well()):
            return NotFound(f"The schema registry at {self.url} does not have {what}.")
        if status in _REFUSED:
            return TopicMismatch(f"The schema registry at {self.url} refuses {what}: {said}")
        return self._no_answer(what, f"HTTP {status}")

    def _no_token(self, reason: BaseException | None) -> KantokuError:
        from authlib.integrations.base_client import OAuthError  # by which confluent-kafka asks for tokens

        status = getattr(getattr(reason, "response", None), "status_code", 0)
        how = f"HTTP {status}" if status else type(reason).__name__
        no_token = f"The token endpoint for the schema registry at {self.url} gives no token ({how}): see"
        if isinstance(reason, OAuthError) or HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR:
            return AccessDenied(f"{no_token} bearer.auth.client.id and bearer.auth.client.secret.")
        return RegistryUnavailable(f"{no_token} bearer.auth.issuer.endpoint.url, and that it is well.")

    def _is_well(self) -> bool:
        """Whether it answers what any registry knows: then it has not what it takes for no resource, as a GUID."""
        try:
            return isinstance(self._client().get_schema_types(), list)
        except Exception:  # noqa: BLE001 - as in _ask
            return False

    def _schema_of(self, text: str) -> Any:
        from confluent_kafka.schema_registry import Schema

        return Schema(text.strip(), "AVRO")  # as confluent-kafka's serializers have it

    def _safe(self, found: Any, what: str) -> SafeSchema:
        try:
            if not isinstance(found.schema_str, str):
                raise self._no_answer(what, "without a schema")
            if found.schema_type not in (None, "AVRO"):
                raise UsageError(f"The schema is one of {found.schema_type}, not of Avro.")
            return SafeSchema(found.schema_str, self._references(found, {}).values())
        except KantokuError:
            self._client().clear_caches()  # it keeps whatever it was told
            raise

    def _references(self, schema: Any, known: dict[tuple[str, int], str]) -> dict[tuple[str, int], str]:
        """What a schema refers to, each behind what it refers to itself."""
        for reference in schema.references or ():
            place = reference.subject, reference.version
            if place not in known:
                known[place] = ""  # here a circle ends; what it leaves open is no schema
                found = self._asked(f"subject {place[0]}", lambda: self._client().get_version(*place)).schema  # noqa: B023
                self._references(found, known)
                del known[place]
                known[place] = found.schema_str
        return known

    def _registered(self, found: Any, schema: SafeSchema, what: str) -> Registered:
        try:
            mark, guid = int(found.schema_id), UUID(found.guid) if found.guid else None
            marked(mark)
        except (TypeError, ValueError, OverflowError) as error:
            self._client().clear_caches()
            raise self._no_answer(what, "without an id") from error
        return Registered(mark, guid, found.version, schema)

    def _no_answer(self, what: str, how: str) -> RegistryUnavailable:
        return RegistryUnavailable(
            f"The schema registry at {self.url} gave no answer about {what} ({how}): see that it is well, and that "
            "the URL is that of Confluent's API."
        )


def _is_caused_by(error: BaseException | None, kind: type[BaseException]) -> bool:
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error is not None
