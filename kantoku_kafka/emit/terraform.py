"""For Terraform's provider Mongey/kafka.

One resource holds all topics of a namespace. Whoever takes a topic out of the map is refused by ``prevent_destroy``; in
a block of its own that would go with it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping

from kantoku_kafka.kafka.rights import Resource, Right
from kantoku_kafka.kafka.wanted import TopicPlan

__all__ = ["acls", "topics"]

_RESOURCES = {
    Resource.TOPIC: "Topic",
    Resource.GROUP: "Group",
    Resource.TRANSACTIONAL_ID: "TransactionalID",
}


def topics(plans: Iterable[TopicPlan], namespace: str) -> str:
    """One ``kafka_topic`` resource. Terraform wants a replication factor: 1 where a plan says none."""
    entries = []
    for plan in plans:
        body = _aligned(
            {"partitions": str(plan.partitions), "replication_factor": str(plan.replication_factor or 1)}, "      "
        )
        config = _aligned({_text(name): _text(value) for name, value in plan.config.items()}, "        ")
        entries.append(f"    {_text(plan.name)} = {{\n{body}      config = {{\n{config}      }}\n    }}\n")
    return f"""resource "kafka_topic" "{_identifier(namespace)}" {{
  for_each = {{
{"".join(entries)}  }}

  name               = each.key
  partitions         = each.value.partitions
  replication_factor = each.value.replication_factor
  config             = each.value.config

  lifecycle {{
    prevent_destroy = true
  }}
}}
"""


def acls(rights: Mapping[str, Iterable[Right]], namespace: str) -> str:
    """One ``kafka_acl`` resource; each right is an entry of its own, and may be taken out alone."""
    entries = {}
    for principal, granted in rights.items():
        for right in granted:
            pattern = "Prefixed" if right.prefixed else "Literal"
            words = [principal, right.operation, _RESOURCES[right.resource], pattern, right.name]
            entries[_text(" ".join(words))] = f"[{', '.join(map(_text, words))}]"
    return f"""resource "kafka_acl" "{_identifier(namespace)}" {{
  for_each = {{
{_aligned(entries, "    ")}  }}

  acl_principal                = each.value[0]
  acl_operation                = each.value[1]
  resource_type                = each.value[2]
  resource_pattern_type_filter = each.value[3]
  resource_name                = each.value[4]
  acl_host                     = "*"
  acl_permission_type          = "Allow"
}}
"""


def _aligned(pairs: Mapping[str, str], indent: str) -> str:
    """As ``terraform fmt`` writes them."""
    width = max(map(len, pairs), default=0)
    return "".join(f"{indent}{name.ljust(width)} = {value}\n" for name, value in pairs.items())


def _text(text: str) -> str:
    """A quoted string in which nothing is evaluated."""
    return json.dumps(text, ensure_ascii=False).replace("${", "$${").replace("%{", "%%{")


def _identifier(namespace: str) -> str:
    """The same one for the same namespace, another one for another."""
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*", namespace):
        return namespace
    readable = re.sub(r"[^A-Za-z0-9-]", "_", namespace)
    return f"_{readable}_{hashlib.sha256(namespace.encode()).hexdigest()[:8]}"
