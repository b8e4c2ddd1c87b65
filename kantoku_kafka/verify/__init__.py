"""Is what was promised true of this namespace? Judged from topics and group offsets alone, without writing anything."""

from kantoku_kafka.verify.checks import Finding, Report, Violation, judge
from kantoku_kafka.verify.evidence import Evidence
from kantoku_kafka.verify.facts import Journal
from kantoku_kafka.verify.reading import collect

__all__ = ["Evidence", "Finding", "Journal", "Report", "Violation", "collect", "judge"]
