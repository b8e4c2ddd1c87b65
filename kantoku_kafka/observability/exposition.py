"""Metrics as Prometheus reads them, by prometheus-client (extra ``prometheus``)."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate
from typing import TYPE_CHECKING

from kantoku_kafka.errors import UsageError
from kantoku_kafka.observability.measured import Distribution, Measured
from kantoku_kafka.observability.metrics import Kind

if TYPE_CHECKING:
    from prometheus_client import Metric as Family

__all__ = ["Exposition"]


class Exposition:
    """What a process shows of what it has measured. Thread-safe.

    Raises:
        UsageError: the extra ``prometheus`` is not installed.
    """

    def __init__(self, measured: Measured) -> None:
        try:
            from prometheus_client import CollectorRegistry, ProcessCollector
        except ImportError as error:
            raise UsageError("/metrics needs an extra: pip install 'kantoku-kafka[prometheus]'.") from error
        self._measured = measured
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def text(self, accepted: str) -> tuple[str, bytes]:
        """Content type and body, in a form that the header ``Accept`` names, else as plain text."""
        from prometheus_client.exposition import choose_encoder

        encode, content_type = choose_encoder(accepted)
        return content_type, encode(self._registry)

    def describe(self) -> Iterable[Family]:
        """prometheus-client asks for names that must not be taken: none is."""
        return ()

    def collect(self) -> Iterable[Family]:
        """prometheus-client asks for the values."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        families = {
            Kind.COUNTER: CounterMetricFamily,
            Kind.GAUGE: GaugeMetricFamily,
            Kind.HISTOGRAM: HistogramMetricFamily,
        }
        for metric, series in self._measured.collect():
            family = families[metric.kind](metric.name, metric.help, labels=metric.labels)
            for labels, value in series.items():
                if isinstance(value, Distribution):
                    bounds = [*map(str, map(float, value.bounds)), "+Inf"]
                    buckets = list(zip(bounds, accumulate(value.counts), strict=True))
                    family.add_metric(labels, buckets, value.sum)
                else:
                    family.add_metric(labels, value)
            yield family
