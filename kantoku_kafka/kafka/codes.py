"""What the errors of librdkafka mean for us: by code and flag, never by text."""

from __future__ import annotations

from confluent_kafka import KafkaError

from kantoku_kafka.errors import AccessDenied, KantokuError, TopicMismatch

__all__ = ["DENIED", "NO_MEMBER", "NO_TOPIC", "PASSING", "TOO_LARGE", "UNSTABLE", "kantoku_error"]

PASSING = frozenset(
    {
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._RESOLVE,
        KafkaError._TIMED_OUT,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError._MSG_TIMED_OUT,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.NOT_ENOUGH_REPLICAS,
        KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.KAFKA_STORAGE_ERROR,
        KafkaError.THROTTLING_QUOTA_EXCEEDED,
        KafkaError.CONCURRENT_TRANSACTIONS,  # the last one under this id is still being ended
        KafkaError._DESTROY_BROKER,  # a broker has left the cluster; another one is asked next time
        KafkaError._WAIT_COORD,
        KafkaError._WAIT_CACHE,
        KafkaError._NOENT,
    }
)
"""States of a cluster that pass by themselves: brokers restart, leaders and coordinators move, topics become known."""
UNSTABLE = frozenset({KafkaError.UNSTABLE_OFFSET_COMMIT})
"""Of a committed offset: an open transaction is about to change it."""
DENIED = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError._SSL,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    }
)
NO_MEMBER = frozenset({KafkaError.GROUP_AUTHORIZATION_FAILED})
"""Of who reads without being a member of a group: librdkafka looks for a coordinator all the same."""
NO_TOPIC = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION})
TOO_LARGE = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE})


def kantoku_error(error: KafkaError, doing: str) -> KantokuError:
    """The error of ours that one stands for which does not pass by itself."""
    said = error.str().rstrip(".")
    if error.code() in DENIED:
        return AccessDenied(f"The broker forbids {doing}: {said}. Ask for the ACL, or check user and password.")
    if error.code() in NO_TOPIC:
        return TopicMismatch(
            f"A topic is missing for {doing}: {said}. Create it (topics create), or name another namespace (-n)."
        )
    return KantokuError(f"Kafka failed while {doing}: {error.name()}: {said}.")
