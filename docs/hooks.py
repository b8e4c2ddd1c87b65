"""Fills in what the documentation takes from the code: ``<!-- cli -->``, ``<!-- metrics -->`` and so on."""

from __future__ import annotations

import json
import re
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Called by mkdocs once: what is generated as a whole, the AsyncAPI document."""
    from kantoku_kafka import Kantoku
    from kantoku_kafka.asyncapi import describe

    shop = Kantoku("shop")
    shop.task("resize")(lambda data: data)
    files.append(File.generated(config, "reference/asyncapi.json", content=json.dumps(describe(shop), indent=2)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs for every page."""
    pages = {
        "cli": command_line,
        "managed": managed_settings,
        "metrics": metrics,
        "profile": profile_keys,
        "rights": rights,
        "tuned": tuned_settings,
        "variables": variables,
    }
    for name, generate in pages.items():
        mark = f"<!-- {name} -->"
        if mark in markdown:
            markdown = markdown.replace(mark, generate())
    return markdown


def command_line() -> str:
    """Every command with its help, as ``--help`` prints it."""
    from kantoku_kafka.cli.main import app

    root = typer.main.get_command(app)
    return "\n".join(_pages(root, "kantoku-kafka", None))


def managed_settings() -> str:
    """The settings of librdkafka on which a promise stands."""
    from kantoku_kafka.configuration.managed import MANAGED

    rows = ["| setting | ours | because |", "|---|---|---|"]
    rows += [f"| `{key}` | {f'`{own}`' if own else ''} | {reason} |" for key, (own, reason) in MANAGED.items()]
    return "\n".join(rows)


def tuned_settings() -> str:
    """The settings of librdkafka that some of our clients set for themselves."""
    from kantoku_kafka.configuration.managed import TUNED

    return f"{', '.join(f'`{key}`' for key in sorted(TUNED))}."


def variables() -> str:
    """Every option that a variable of the environment stands for."""
    from kantoku_kafka.cli.main import app

    rows: dict[str, str] = {}
    for option in _options(typer.main.get_command(app)):
        for name in re.findall(r"KANTOKU_\w+", f"{option.envvar} {option.help}"):
            names = ", ".join(f"`{name}`" for name in option.opts)
            rows.setdefault(name, f"| `{name}` | {names}: {re.sub(r'; or KANTOKU_[A-Z_]+', '', option.help)} |")
    return "\n".join(["| variable | the same as |", "|---|---|", *rows.values()])


def profile_keys() -> str:
    """What a profile may hold."""
    from kantoku_kafka.configuration.profiles import TOPIC_PREFIXES, TOPICS

    topics = ", ".join(f"`topics.{name}`" for name in TOPICS)
    prefixes = " and ".join(f'`topics."{prefix}*"`' for prefix in TOPIC_PREFIXES)
    return f"""| key of `[profiles.NAME]` | what |
|---|---|
| `bootstrap_servers` | as `-b` |
| `namespace` | as `-n` |
| {topics}, {prefixes} | the name of that topic, where it is not the one that follows from the namespace |
| `kafka.KEY` | as `-X KEY=VALUE` |"""


def metrics() -> str:
    """Every metric, and the buckets of the histograms."""
    from kantoku_kafka.observability.metrics import BUCKETS, METRICS

    rows = ["| name | kind | unit | labels | what |", "|---|---|---|---|---|"]
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        rows.append(f"| `{metric.name}` | {metric.kind} | {metric.unit} | {labels} | {metric.help} |")
    rows += ["", "Upper bounds of the buckets:", ""]
    rows += [f"- `{name}`: {', '.join(f'{bound:g}' for bound in bounds)}" for name, bounds in BUCKETS.items()]
    return "\n".join(rows)


def _options(command: Any) -> list[Any]:
    found = [parameter for parameter in command.params if parameter.param_type_name == "option"]
    return found + [option for sub in getattr(command, "commands", {}).values() for option in _options(sub)]


def _pages(command: Any, name: str, parent: Any) -> list[str]:
    context = command.make_context(name.rsplit(" ", 1)[-1], [], parent=parent, resilient_parsing=True)
    pages = []
    commands = getattr(command, "commands", {})
    if parent is None or not commands or command.invoke_without_command:
        text = re.sub(r"\x1b\[[0-9;]*m", "", command.get_help(context))
        pages.append(f"## {name}\n\n```text\n{text.strip()}\n```\n")
    for sub in sorted(commands):
        pages += _pages(commands[sub], f"{name} {sub}", context)
    return pages


def rights() -> str:
    """What each role may do with each resource."""
    from kantoku_kafka.kafka.rights import Role, rights_of
    from kantoku_kafka.names import Topics

    topics = Topics(namespace="shop")
    found: dict[tuple[str, str], dict[Role, list[str]]] = {}
    for role in Role:
        for right in rights_of(role, topics, [topics.of_type("resize")]):
            name = f"`{right.name}*`" if right.prefixed else f"`{right.name}`"
            found.setdefault((right.resource, name), {}).setdefault(role, []).append(right.operation)
    rows = [f"| | {' | '.join(Role)} |", f"|---|{'---|' * len(Role)}"]
    for (resource, name), allowed in sorted(found.items()):
        rows.append(f"| {resource} {name} | {' | '.join(', '.join(allowed.get(role, [])) for role in Role)} |")
    return "\n".join(rows)
