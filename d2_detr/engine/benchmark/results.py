"""The results of a benchmark, as a table, as JSON and as a plot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tabulate import tabulate

from d2_detr.engine.benchmark.contestants import OURS
from d2_detr.engine.benchmark.measure import Timing
from d2_detr.utils.files import atomic_write, write_json

PASSES = {"train": "training step", "inference": "inference"}


@dataclass
class Row:
    """The measurements of a contestant; None for what was not measured.

    Args:
        same_work: it does what this project does, so that their times are compared; False if it does less.
        train: of a training step on a batch.
        inference: of detection in a batch.
        memory: bytes that a training step needs in addition to weights and optimizer.
        profile: seconds of a training step by kind of operator.
    """

    name: str
    precision: str
    same_work: bool = True
    train: Timing | None = None
    inference: Timing | None = None
    memory: int | None = None
    profile: dict[str, float] | None = None


@dataclass
class Results:
    """Everything that was measured.

    Args:
        settings: config, device, batch and versions.
        left_out: reason for each implementation that is not compared.
        differences: of the figures of each contestant from this project's, before the first training step.
        flop: floating-point operations of a call, by pass and kind.
        limits: floating-point operations per second of plain operators, by precision and kind.
        loader: images per second per core.
        evaluation: images per second, by precision and name.
    """

    settings: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    differences: dict[str, dict[str, float]] = field(default_factory=dict)
    flop: dict[str, dict[str, int]] = field(default_factory=dict)
    limits: dict[str, dict[str, float]] = field(default_factory=dict)
    loader: dict[str, float] = field(default_factory=dict)
    evaluation: dict[str, dict[str, float]] = field(default_factory=dict)

    def speedup(self, precision: str, pass_name: str) -> tuple[str, float] | None:
        """Return the fastest peer with the same work, and its time divided by this project's; None without both."""
        medians = {
            row.name: timing.median
            for row in self.rows
            if row.precision == precision and row.same_work and (timing := getattr(row, pass_name))
        }
        ours = medians.pop(OURS, None)
        if ours is None or not medians:
            return None
        fastest = min(medians, key=lambda name: medians[name])
        return fastest, medians[fastest] / ours

    def share_of_limit(self, row: Row, pass_name: str) -> float | None:
        """Return the time that plain operators would take for the operations of a pass, divided by that of a row."""
        timing, limits = getattr(row, pass_name), self.limits.get(row.precision)
        if not timing or not limits:
            return None
        return sum(count / limits[kind] for kind, count in self.flop[pass_name].items()) / timing.median

    def as_markdown(self) -> str:
        """Return the tables and sentences that summarize the results."""
        return "\n\n".join(filter(None, self._sections())) + "\n"

    def save(self, folder: Path) -> None:
        """Write results.json, results.md and results.png to a folder."""
        from d2_detr.engine.benchmark.plot import save_plot  # matplotlib takes a second

        write_json(asdict(self), folder / "results.json")
        with atomic_write(folder / "results.md") as temporary:
            temporary.write_text(self.as_markdown(), encoding="utf-8")
        save_plot(self, folder / "results.png")

    def _sections(self) -> Iterator[str]:
        yield ", ".join(f"{name} {value}" for name, value in self.settings.items())
        yield _table([self._cells(row) for row in self.rows])
        yield "\n".join(self._sentences())
        profiles = {f"{row.name}, {row.precision}": row.profile for row in self.rows if row.profile}
        if profiles:
            kinds = next(iter(profiles.values()))
            rows = [{"ms of a training step": k} | {n: f"{1e3 * p[k]:.1f}" for n, p in profiles.items()} for k in kinds]
            yield _table(rows)
        if self.evaluation:
            yield _table(
                [
                    {"evaluation": name, "precision": precision, "images/s": f"{speed:.2f}"}
                    for precision, speeds in self.evaluation.items()
                    for name, speed in speeds.items()
                ]
            )

    def _cells(self, row: Row) -> dict[str, str]:
        cells = {"implementation": row.name, "precision": row.precision}
        ours = next((r for r in self.rows if r.name == OURS and r.precision == row.precision), None)
        for mark, (pass_name, title) in zip(("", " "), PASSES.items(), strict=True):  # keys must be different
            timing, reference = getattr(row, pass_name), getattr(ours, pass_name, None)
            share = self.share_of_limit(row, pass_name)
            cells[f"{title}, s"] = str(timing) if timing else ""
            cells[f"x {OURS}{mark}"] = f"{timing.median / reference.median:.2f}" if timing and reference else ""
            cells[f"of limit{mark}"] = f"{share:.0%}" if share else ""
        return cells | {"memory, MiB": f"{row.memory / 2**20:.0f}" if row.memory is not None else ""}

    def _sentences(self) -> Iterator[str]:
        for precision in self.limits:
            for pass_name, title in PASSES.items():
                if best := self.speedup(precision, pass_name):
                    peer, ratio = best
                    yield f"- {title} in {precision}: {OURS} is {ratio:.2f} times as fast as the fastest peer, {peer}."
        for name, reason in self.left_out.items():
            yield f"- {name} is left out: {reason}."
        for precision, limits in self.limits.items():
            speeds = ", ".join(f"{speed / 1e9:.0f} GFLOP/s in {name}" for name, speed in limits.items())
            yield f"- Arithmetic limit in {precision}: {speeds}."
        for pass_name, counts in self.flop.items():
            numbers = ", ".join(f"{count / 1e9:.1f} GFLOP in {kind}" for kind, count in counts.items())
            yield f"- Operations of {PASSES[pass_name]}: {numbers}."
        if self.loader:
            speeds = ", ".join(f"{speed:.1f} images/s ({name})" for name, speed in self.loader.items())
            yield f"- Loader on one core: {speeds}."


def _table(rows: list[dict[str, str]]) -> str:
    """Format rows as a table of Markdown, without columns that are empty in all of them."""
    names = [name for name in rows[0] if any(row[name] for row in rows)]
    return tabulate([[row[name] for name in names] for row in rows], names, "github", disable_numparse=True)
