"""What an administrator does to topics, for tests that have to live with it."""

from __future__ import annotations

from access import super_user
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from executors import until


def alter_topic(bootstrap: str, topic: str, **settings: str) -> None:
    """Change settings of a topic; ``_`` in a name is written as ``.``."""
    changes = [
        ConfigEntry(name.replace("_", "."), value, incremental_operation=AlterConfigOpType.SET)
        for name, value in settings.items()
    ]
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=changes)
    admin = AdminClient(super_user(bootstrap))
    admin.incremental_alter_configs([resource])[resource].result(10)


def delete_topic(bootstrap: str, topic: str) -> None:
    """Delete a topic and wait until it is gone."""
    admin = AdminClient(super_user(bootstrap))
    admin.delete_topics([topic])[topic].result(10)
    until(lambda: topic not in admin.list_topics(timeout=10).topics, 10, "its deletion")
