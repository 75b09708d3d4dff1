"""Adds up the metrics of the processes of one supervisor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

_COUNTED = ("counter", "histogram")

_Series = tuple[str, tuple[tuple[str, str], ...]]


class ProcessPages:
    """What ended processes have counted stays in the sums: a counter that went back would be taken for a restart, and
    its rest for new events."""

    def __init__(self) -> None:
        self._ended = _Families()

    def add_up(self, pages: Sequence[str]) -> str:
        sums = _Families()
        sums.add(self._ended.collect())
        for page in pages:
            sums.add(text_string_to_metric_families(page))
        registry = CollectorRegistry(auto_describe=False)
        registry.register(sums)
        return generate_latest(registry).decode()

    def keep(self, page: str) -> None:
        self._ended.add(family for family in text_string_to_metric_families(page) if family.type in _COUNTED)


class _Families(Collector):
    def __init__(self) -> None:
        self._families: dict[str, tuple[str, str, dict[_Series, float]]] = {}
        """By name: the documentation, the type, and the values."""

    def add(self, families: Iterable[Metric]) -> None:
        for family in families:
            _, _, values = self._families.setdefault(family.name, (family.documentation, family.type, {}))
            for sample in family.samples:
                series = (sample.name, tuple(sample.labels.items()))
                values[series] = values.get(series, 0.0) + sample.value

    def collect(self) -> Iterator[Metric]:
        for name, (documentation, kind, values) in self._families.items():
            family = Metric(name, documentation, kind)
            family.samples = [Sample(each, dict(labels), value) for (each, labels), value in values.items()]
            yield family
