"""What a producer is told that was fenced amid its work, on a real Kafka."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from kantoku_kafka import Kantoku

ATTEMPTS = 5  # the order of the fatal error and the reports is up to librdkafka's threads
RECORDS = 200


def test_a_fence_amid_a_flush_is_told_as_what_it_is(kan: Kantoku) -> None:
    reported: list[int] = []

    def connected(number: int) -> Any:
        settings = {"transactional.id": f"{kan.namespace}.{number}", "delivery.report.only.error": True}
        producer = kan.clients.producer(**settings, on_delivery=lambda error, _: reported.append(error.code()))
        producer.init_transactions(10)
        return producer

    for number in range(ATTEMPTS):
        fenced = connected(number)
        fenced.begin_transaction()
        connected(number)
        for n in range(RECORDS):
            fenced.produce(kan.topics.results, b"v", b"%d" % n)
        with pytest.raises(KafkaException) as raised:
            fenced.flush(10)
        assert raised.value.args[0].code() == KafkaError._FENCED
    assert set(reported) <= {KafkaError._PURGE_QUEUE, KafkaError._FENCED, KafkaError._FATAL}
