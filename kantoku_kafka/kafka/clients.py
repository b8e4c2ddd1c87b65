"""The clients of one connection, and what stands between us and a broker when none answers."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from textwrap import shorten
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from kantoku_kafka.avro.framing import Frame
from kantoku_kafka.configuration.known import hints
from kantoku_kafka.configuration.managed import overridden
from kantoku_kafka.configuration.masks import hide, masked
from kantoku_kafka.configuration.references import resolved
from kantoku_kafka.errors import AccessDenied, BrokerUnavailable, KantokuError, UsageError
from kantoku_kafka.kafka import reachability
from kantoku_kafka.kafka.client_log import ClientLog
from kantoku_kafka.kafka.codes import DENIED, PASSING, kantoku_error
from kantoku_kafka.kafka.producer import Producer
from kantoku_kafka.kafka.refusals import Refusals
from kantoku_kafka.kafka.user_settings import OAUTHBEARER, TOKEN_URL, librdkafka_config
from kantoku_kafka.settings import Connection

__all__ = ["Clients"]

_log = logging.getLogger(__name__)
T = TypeVar("T")
_FIRST_SLICE_SECONDS = 0.5  # between slices Python serves signals
_SESSION_TIMEOUT_MS = 10_000
_ASK_AGAIN_SECONDS = 0.1
_ADMIN_SECONDS = 5.0
_MOST_LOOKED_AT = 30
_PLACES_SECONDS = 8.0
_MOST_TOLD = 400  # characters of what a server said


class Clients:
    """Makes the clients of one connection and remembers why it could not be reached. Thread-safe.

    Parameters:
        connection: address and user settings, which every client shares.
        frames: answers by topic how values are framed that are written, other than in our own form; may ask a registry.
    """

    def __init__(self, connection: Connection, frames: Callable[[], Mapping[str, Frame]] = dict) -> None:
        self.connection = connection
        self.frames = frames
        ignored = overridden(connection.config)
        if ignored:
            _log.warning(
                "settings that do not count here: %s", ", ".join(ignored), extra={"action": "managed_settings"}
            )
        self._log = ClientLog()
        self._refusals = Refusals()
        self._lock = threading.Lock()
        self._admin: AdminClient | None = None
        self._admin_until = 0.0
        self._places: list[str] = []  # where brokers say that they are; empty: none has let us in yet
        self._places_checked = False

    @property
    def client_id(self) -> str:
        """What brokers know our clients by: the user's own choice (quotas go by it), or our name."""
        return str(self.setting("client.id", "kantoku-kafka"))

    def setting(self, key: str, default: Any) -> Any:
        """The user's value for one of librdkafka's settings, with its references looked up. Raises UsageError."""
        return resolved(key, self.connection.config.get(key, default))

    def producer(self, **settings: Any) -> Producer:
        """A producer that loses nothing: idempotent, acknowledged by all, partitions as the Java client."""
        return self._made(
            Producer,
            {
                "enable.idempotence": True,
                "acks": "all",
                "allow.auto.create.topics": False,
                "partitioner": "murmur2_random",
                "linger.ms": 1,
                # A broker that is still ending the last transaction asks to try again: at once, not in 100 ms.
                "retry.backoff.ms": 5,
                "topic.metadata.propagation.max.ms": 3000,
                **settings,
            },
        )

    def consumer(self, **settings: Any) -> Consumer:
        """A consumer that commits nothing by itself and sees committed records only."""
        return self._made(
            Consumer,
            {
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
                "check.crcs": True,
                "fetch.queue.backoff.ms": 5,
                "allow.auto.create.topics": False,
                # A user's max.poll.interval.ms must not be less, says librdkafka, even where there is no group.
                **({} if settings.get("group.protocol") == "consumer" else {"session.timeout.ms": _SESSION_TIMEOUT_MS}),
                **settings,
            },
        )

    def admin(self) -> AdminClient:
        """An administrative client; keep the reference until its futures have resolved.

        One that was made a moment ago serves the next requests too; an older one may not know who leads now.
        """
        with self._lock:
            now = time.monotonic()
            if self._admin is None or now > self._admin_until:
                # To look a topic up must not create it: brokers do that by default, with their own policy.
                settings = {"allow.auto.create.topics": False, "connections.max.idle.ms": 30_000}
                self._admin, self._admin_until = self._made(AdminClient, settings), now + _ADMIN_SECONDS
            return self._admin

    def unreachable(self, doing: str, error: KafkaError | None = None) -> KantokuError:
        """What to raise when no answer came: a denial, if there was one a moment ago, or that nobody answers."""
        return self._denial(doing) or self._silence(doing, error)

    def obstacle(self) -> KantokuError | None:
        """What is in the way to the brokers. For who begins, and has the time: it may take LOOK_SECONDS."""
        return reachability.obstacle(librdkafka_config(self.connection))

    def check_places(self, metadata: Any, doing: str, within_seconds: float) -> None:
        """Make sure, once, that brokers may be where they send us on to. For who begins; it takes 8 s at most.

        Raises:
            BrokerUnavailable: no name that they tell is known here, or no port takes connections.
        """
        first, self._places_checked = not self._places_checked, True
        self._note_places(metadata)
        seconds = min(_PLACES_SECONDS, within_seconds)
        if first and self._is_sent_on() and reachability.nobody_at(self._places[:_MOST_LOOKED_AT], seconds):
            raise self._silence(doing, None)

    def error(self, error: KafkaError, doing: str) -> KantokuError:
        """The error of ours that a KafkaError stands for."""
        if error.code() == KafkaError.CONCURRENT_TRANSACTIONS:
            return BrokerUnavailable(
                f"Kafka has not ended the last transaction yet while {doing}. Should that last for minutes, restart "
                "the broker that kafka-transactions.sh list names as its coordinator."
            )
        if error.code() in PASSING:
            return self.unreachable(doing, error)
        return kantoku_error(error, doing)

    def insist(
        self,
        request: Callable[[], T],
        doing: str,
        passing: frozenset[int] = frozenset(),
        seconds: float | None = None,
    ) -> T:
        """What a request comes to; one that fails in passing (a coordinator that loads) is made again meanwhile.

        Parameters:
            passing: codes of errors that pass as well.
            seconds: for so long; default: the connection's timeout.

        Raises:
            KantokuError: it failed, or was not answered within this time.
        """
        deadline = time.monotonic() + (self.connection.timeout_seconds if seconds is None else seconds)
        while True:
            try:
                return request()
            except KafkaException as error:
                if error.args[0].code() not in PASSING | passing or time.monotonic() > deadline:
                    raise self.error(error.args[0], doing) from error
            except TimeoutError as error:
                raise self.unreachable(doing) from error
            time.sleep(_ASK_AGAIN_SECONDS)

    def check(self, topic: str | None = None) -> None:
        """Make sure that a broker answers, and that one may be where it sends us on to. Raises as :meth:`metadata`.

        Parameters:
            topic: asked about, whether it exists or not; default: all topics, of which there may be many.
        """
        self.check_places(self.metadata("connecting", topic), "connecting", self.connection.timeout_seconds)

    def metadata(self, doing: str, topic: str | None = None) -> Any:
        """What the cluster says of itself and of one topic, or of all that we may see.

        Raises:
            UsageError, BrokerUnavailable, AccessDenied: within the timeout; soon where waiting does not help.
        """
        named = () if topic is None else (topic,)
        deadline = time.monotonic() + self.connection.timeout_seconds
        slice_seconds = _FIRST_SLICE_SECONDS
        obstacle = None
        while True:
            seconds = min(slice_seconds, max(_ASK_AGAIN_SECONDS, deadline - time.monotonic()))
            try:
                found: Any = self.admin().list_topics(*named, timeout=seconds)
                self._note_places(found)
                return found
            except KafkaException as error:
                reason = self.error(error.args[0], doing)
                left_seconds = deadline - time.monotonic()
                if error.args[0].code() in PASSING:
                    if left_seconds > reachability.LOOK_SECONDS:
                        obstacle = self.obstacle()
                    reason = obstacle or reason
                # A broker may still be starting; what we were told wrong stays so.
                if not isinstance(reason, BrokerUnavailable) or left_seconds <= 0:
                    raise reason from error
                with self._lock:
                    self._admin = None  # it may know by now where brokers say that they are, and ask nobody else
            time.sleep(_ASK_AGAIN_SECONDS)
            slice_seconds *= 2  # the metadata of many topics may take longer

    def check_access(self, doing: str) -> None:
        """For who waits in vain: have brokers been refusing us for long, and would they refuse anybody like us now?

        Raises:
            AccessDenied, UsageError: they would. Where they have not, this costs nothing.
        """
        if self._refusals.lasting:
            self.check_refused(doing)

    def check_refused(self, doing: str) -> None:
        """Raise as :meth:`metadata` if anybody like us would be refused now; not if only nobody answers."""
        self._refusals.forget()  # who still refuses says so again
        with suppress(BrokerUnavailable):
            self.metadata(doing)

    def _denial(self, doing: str) -> AccessDenied | None:
        """If a broker denied us a moment ago, or whoever gives us tokens did."""
        if self._admin is not None:
            self._admin.poll(0)  # it says so here
        refusal = self._refusals.latest
        if refusal is None:
            return None
        user, check = self.setting("sasl.username", None), "user, password and ACLs"
        if "sasl.oauthbearer.client.id" in self.connection.config:
            user = self.setting("sasl.oauthbearer.client.id", None)
            check = "the token endpoint (https.ca.location, if it is one of https), and id and secret of the client"
        elif "oauth_cb" in self.connection.config:
            check = "the token that oauth_cb gives"
        who = "us" if user is None else f"{user!r}"
        reason = _told(refusal, self._log.config)
        return AccessDenied(f"Access is denied to {who} while {doing}: {reason}. Check {check}.")

    def _note_places(self, metadata: Any) -> None:
        self._places = [_place(broker.host, broker.port) for broker in metadata.brokers.values()]

    def _is_sent_on(self) -> bool:
        known = str(resolved("bootstrap.servers", self.connection.bootstrap_servers))
        return bool(self._places) and not any(place in known for place in self._places)

    def _silence(self, doing: str, error: KafkaError | None) -> BrokerUnavailable:
        reason = f" ({error.name()})" if error else ""
        servers = masked("bootstrap.servers", self.connection.bootstrap_servers)
        if not self._places and self.setting("sasl.mechanism", None) == OAUTHBEARER:
            source = masked(TOKEN_URL, self.setting(TOKEN_URL, "oauth_cb"))
            return BrokerUnavailable(
                f"No broker lets us in at {servers} while {doing}{reason}: is there a token yet? Check that {source} "
                "gives one within seconds."
            )
        if self._is_sent_on():
            return BrokerUnavailable(
                f"No broker answers at {', '.join(self._places[:3])}, where {servers} sends us on to, while {doing}"
                f"{reason}. Check that these addresses (advertised.listeners of the brokers) are reached from here, "
                "and that Kafka runs there."
            )
        return BrokerUnavailable(
            f"No broker answers at {servers} while {doing}{reason}. Check "
            "--bootstrap-servers and that Kafka runs there, or start one with: kantoku-kafka dev broker"
        )

    def _made(self, client: type[T], settings: Mapping[str, Any]) -> T:
        user = self._log.config = librdkafka_config(self.connection)
        config = {
            "client.id": self.client_id,
            "socket.nagle.disable": True,
            **user,
            **settings,
            "logger": self._log,
            "error_cb": self._on_error,
        }
        try:
            made: T = client(config)  # type: ignore[call-arg]  # type[T] has no signature
            return made
        except KafkaException as error:
            refused: KafkaError = error.args[0]
        except (TypeError, ValueError) as error:  # a callback that is none
            raise UsageError(f"confluent-kafka refuses the configuration: {hide(str(error), user)}.") from None
        # Not while it is handled: its text may quote a secret, and would stand in the traceback of what is raised.
        reachability.check_settings(user)  # a file that cannot be used is named better here
        raise self._refusal(refused, user)

    def _refusal(self, error: KafkaError, user: Mapping[str, object]) -> KantokuError:
        """What to raise when librdkafka makes no client."""
        if error.code() in DENIED:
            return AccessDenied(f"No token for SASL/OAUTHBEARER: {error.str()}. The log says what oauth_cb did.")
        origins = self.connection.origins
        named = [key for key, value in user.items() if not callable(value)]
        unknown = [f"{hint} ({origins.get(key, 'app')})" for key, hint in hints(named)]
        known = f" {'; '.join(unknown)}." if unknown else " config show names the origin of each setting."
        if "ssl.keystore.location" in user:
            known = f" Is ssl.keystore.password that of the store?{known}"
        return UsageError(f"librdkafka refuses the configuration: {_told(error, user)}.{known}")

    def _on_error(self, error: KafkaError) -> None:
        if error.code() in DENIED and error.code() != KafkaError._SSL:  # a handshake also fails while a broker ends
            self._refusals.note(error)
        _log.debug("client error: %s", hide(str(error), self._log.config), extra={"action": "client_error"})


def _told(error: KafkaError, config: Mapping[str, object]) -> str:
    """On one line: it may be a page of HTML."""
    return shorten(hide(error.str(), config), _MOST_TOLD, placeholder=" ...").removesuffix(".")


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
