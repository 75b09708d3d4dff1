"""Measures scenarios: cycle by cycle, the variants of each in turns."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.results import Measurement
from benchmarks.scenario import Sample, Scenario, Site, Variant
from benchmarks.sizes import Sizes
from benchmarks.stores import Store

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Runner:
    """``tell`` hears what is being measured, and what came out."""

    sizes: Sizes
    repeat: int
    directory: Path
    tell: Tell

    async def run(self, scenario: Scenario, store: Store) -> list[Measurement]:
        """Every variant of the scenario, as often as is to be repeated. Even cycles go through the variants the other
        way round, so that none always comes first."""
        variants = list(scenario.variants(store, self.sizes))
        samples: dict[str, list[Sample]] = {variant.name: [] for variant in variants}
        cycles = 1 if scenario.once else self.repeat
        for cycle in range(cycles):
            for variant in variants if cycle % 2 == 0 else reversed(variants):
                sample = await self._measure(variant, store)
                samples[variant.name].append(sample)
                shown = f"{len(sample.figures)} figures" if scenario.by_part else _shown(sample)
                self.tell(f"{store.kind}  {scenario.name}  {variant.name}: {shown}")
        return [_measurement(scenario, store, variant, samples[variant.name]) for variant in variants]

    async def _measure(self, variant: Variant, store: Store) -> Sample:
        store.clear()
        with tempfile.TemporaryDirectory(dir=self.directory) as directory:
            return await variant.measure(Site(store, self.sizes, Path(directory)))


def _measurement(scenario: Scenario, store: Store, variant: Variant, samples: Sequence[Sample]) -> Measurement:
    return Measurement(
        scenario.name,
        scenario.title,
        store.kind,
        variant.name,
        variant.against,
        scenario.compared,
        scenario.axis,
        {name: [sample.figures[name] for sample in samples] for name in samples[0].figures},
        samples[-1].series,
        scenario.by_part,
    )


def _shown(sample: Sample) -> str:
    return ", ".join(f"{name} {value:,.4g}" for name, value in sample.figures.items())
