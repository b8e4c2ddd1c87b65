"""An existing topic becomes tasks: the shop writes JSON to ``orders``, as ever, and knows nothing of us.

Each order is shipped once, also if the shop writes it twice; what came of it stands in ``shipments``, under the key of
the order, for whoever reads that.

    python orders.py place 7 8 9
    kantoku-kafka topics create orders:kan --yes
    kantoku-kafka run-executor orders:kan
    python orders.py watch 3
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress

from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from kantoku_kafka import Kantoku, Reject, Retry
from kantoku_kafka.formats import Json

kan = Kantoku("shipping")


@kan.task(
    "ship",
    from_topics={"orders": Json(id_field="order_id")},
    retry=Retry(max_attempts=5),
    reply_to="shipments",
    reply_format=Json(),
)
def ship(data: bytes) -> bytes:
    """An order in, a parcel number out."""
    order = json.loads(data)
    if not order["address"]:
        raise Reject("there is no address")
    return json.dumps({"order_id": order["order_id"], "parcel": f"P-{order['order_id']:04}"}).encode()


# --- the others, who use nothing but Kafka


def place(servers: str, order_ids: list[str]) -> None:
    """The shop: it has its topics, and writes orders, each of them twice for good measure."""
    shop = {"bootstrap.servers": servers}
    admin = AdminClient(shop)
    for created in admin.create_topics([NewTopic("orders", 4), NewTopic("shipments", 4)]).values():
        with suppress(KafkaException):  # it is there
            created.result(10)
    producer = Producer(shop)
    for order_id in order_ids * 2:
        order = {"order_id": int(order_id), "address": "Elm Street 1"}
        producer.produce("orders", json.dumps(order).encode(), key=order_id)
    producer.flush(10)


def watch(servers: str, count: int) -> None:
    """Customer care: so many shipments."""
    care = {"bootstrap.servers": servers, "group.id": "care", "auto.offset.reset": "earliest"}
    consumer = Consumer({**care, "isolation.level": "read_committed"})
    consumer.subscribe(["shipments"])
    while count:
        record = consumer.poll(1)
        if record is not None and record.error() is None:
            print((record.key() or b"").decode(), dict(record.headers() or ())["kantoku-status"], record.value())
            count -= 1
    consumer.close()


if __name__ == "__main__":
    servers = kan.connection.bootstrap_servers
    if sys.argv[1] == "place":
        place(servers, sys.argv[2:])
    else:
        watch(servers, int(sys.argv[2]))
