"""Run a prompt suite on a Ray cluster and record it in MLflow.

``python -m benchmarks.run_suite --models triposr --suite smoke`` uses the cluster that RAY_ADDRESS
names, or this machine. Called again with the same ``--name`` it does what is still missing.
``--gate`` compares the pass with the baseline of its device: exit status 3 on a regression.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from benchmarks.environment import describe_machine
from benchmarks.suite.cluster import run_cases
from benchmarks.suite.store import PassStore
from benchmarks.suite.worker import WorkerSetup
from deployments.plan import ModelPlan, cluster_gpus
from deployments.process import import_modules
from dream_cad.benchmark.comparison import comparison_page
from dream_cad.benchmark.gate import baseline_path, check_baseline, write_baseline
from dream_cad.benchmark.performance import PerformanceMetrics, PerformanceTracker
from dream_cad.benchmark.records import CaseRecord, record_of, summarize_records
from dream_cad.benchmark.suites import SUITES, SuiteCase, SuiteName, text_cases
from dream_cad.benchmark.tracking import SuiteRun, Tracking
from dream_cad.exceptions import DreamCadError, InvalidConfigError
from dream_cad.models.registry import ModelRegistry
from dream_cad.settings import get_settings
from jobs.batch.planning import Planner
from jobs.generate_batch import connected
from jobs.nano.truth import truth_cases

TEST_RUNS = {"smoke": 1, "standard": 3, "stress": 3}
FAILURE, REGRESSION = 1, 3
BASELINES = Path(__file__).parent / "baselines"
_console = Console(stderr=True)


@dataclass(frozen=True)
class Wishes:
    """What the caller asked for.

    Attributes:
        models: names.
        suite: smoke, standard or stress.
        name: of the pass.
        folder: where passes are kept.
        checkpoint: of all models, None for the setting.
        modules: that register custom models.
        workers: of each model at most.
        runs: measured runs of each case.
        limit: cases of each model at most.
        clip: source of CLIP weights.
        baseline: what to do with the baseline of the device.
    """

    models: tuple[str, ...]
    suite: SuiteName
    name: str
    folder: Path
    checkpoint: str | None = None
    modules: tuple[str, ...] = ()
    workers: int | None = None
    runs: int = 1
    limit: int | None = None
    clip: str | None = None
    baseline: Literal["check", "write"] | None = None

    @property
    def cases(self) -> list[SuiteCase]:
        """The cases of the suite."""
        return [*text_cases(self.suite), *truth_cases(self.suite)][: self.limit]

    @property
    def conditions(self) -> dict[str, Any]:
        """What must be the same for records to stand side by side."""
        return {"checkpoint": self.checkpoint, "runs": self.runs, "clip": self.clip}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; return 0 when done, 1 on a failure of the pass itself, 3 on a regression."""
    wishes = _parse(arguments)
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    try:
        import_modules(wishes.modules)
        for name in wishes.models:  # told before anything is started
            ModelRegistry().require_capabilities(name)
        tracking = Tracking()
        records = run_pass(wishes, tracking)
        track_performance(records, PerformanceTracker(tracking))
        return REGRESSION if wishes.baseline and not _gate(records, wishes) else 0
    except DreamCadError as error:
        _console.print(f"error: {error}", markup=False)
        return FAILURE


def run_pass(wishes: Wishes, tracking: Tracking) -> list[CaseRecord]:
    """Do what is missing of a pass; return all its records.

    Raises:
        InvalidConfigError: a model cannot run, or the name belongs to a pass that was measured in
            another way.
        StorageError: results cannot be written.
    """
    store = PassStore(wishes.folder / wishes.suite / wishes.name)
    done = {record.key for record in store.records()}
    noted = store.load_pass()
    _require_same(wishes, noted)
    cases = wishes.cases
    with connected():
        plans = _plans(wishes)
        params = {"models": " ".join(wishes.models), "suite": wishes.suite, "runs": wishes.runs}
        machine = {f"machine/{key}": value for key, value in describe_machine().items()}
        with tracking.suite(
            f"suite-{wishes.suite}",
            name=wishes.name,
            params=params | machine,
            prompts=[case.to_dict() for case in cases],
            run_id=noted.get("run_id"),
        ) as run:
            store.save_pass({"run_id": run.run_id, **wishes.conditions})
            for plan in plans:
                left = [case for case in cases if f"{plan.name}--{case.key}" not in done]
                _run_model(plan, left, wishes, store, run, len(cases))
            records = list(store.records())
            _report(records, wishes, store, run)
    _console.print(f"runs: {tracking.ui_command}", markup=False, soft_wrap=True)
    return records


def _require_same(wishes: Wishes, noted: dict[str, Any]) -> None:
    """Refuse to go on with a pass whose cases were not measured as these would be."""
    differing = [
        f"{key} was {noted[key]!r} and is {value!r}"
        for key, value in wishes.conditions.items()
        if key in noted and noted[key] != value
    ]
    if differing:
        raise InvalidConfigError(
            f"The pass {wishes.name!r} was measured in another way: {'; '.join(differing)}.",
            hint="Give the new pass another --name, or go on with the old one's arguments.",
        )


def track_performance(records: list[CaseRecord], tracker: PerformanceTracker) -> None:
    """Add one measurement of each model to the trends."""
    for model, found in summarize_records(records).items():
        mine = [record for record in records if record.model == model]
        seconds = sum(sum(record.run_seconds) for record in mine)
        runs = sum(len(record.run_seconds) for record in mine)
        tracker.track_performance(
            model,
            PerformanceMetrics(
                generation_time_seconds=found.get("generation_time_seconds", math.nan),
                peak_vram_gb=found.get("peak_vram_gb", 0.0),
                peak_ram_gb=found.get("peak_ram_gb", 0.0),
                success_rate=found["success_rate"],
                quality_score=found.get("quality/overall_mesh_quality"),
                throughput_per_hour=3600 * runs / seconds if seconds else None,
                device=mine[0].device,
            ),
        )


def _gate(records: list[CaseRecord], wishes: Wishes) -> bool:
    """Write the baseline, or compare with it; return whether nothing got worse."""
    summaries = summarize_records(records)
    path = baseline_path(BASELINES, records[0].device, wishes.suite)
    if wishes.baseline == "write":
        write_baseline(path, summaries, {"suite": wishes.suite, "machine": describe_machine()})
        _console.print(f"baseline: {path}", markup=False)
        return True
    checks = check_baseline(path, summaries)
    for check in checks:
        _console.print(str(check), markup=False, highlight=False, soft_wrap=True)
    return all(check.is_passed for check in checks)


def _plans(wishes: Wishes) -> list[ModelPlan]:
    planner = Planner(cluster_gpus(), wishes.checkpoint, None, wishes.modules)
    plans = [planner.plan(name) for name in wishes.models]
    for plan in plans:
        if not plan.is_deployed:
            raise InvalidConfigError(f"{plan.name} cannot be benchmarked: {plan.reason}")
    return plans


def _run_model(
    plan: ModelPlan,
    cases: list[SuiteCase],
    wishes: Wishes,
    store: PassStore,
    run: SuiteRun,
    total: int,
) -> None:
    setup = WorkerSetup(plan.name, plan.options, wishes.modules, wishes.runs, wishes.clip)
    found = run_cases(
        setup,
        cases,
        num_gpus=plan.num_gpus,
        accelerators=plan.accelerators,
        workers=wishes.workers,
    )
    with _progress() as bar:
        task = bar.add_task(plan.name, total=total, completed=total - len(cases))
        for count, (case, outcome) in enumerate(found, total - len(cases) + 1):
            record = record_of(case, outcome.result, outcome.metrics)
            run.log_result(
                outcome.result,
                mesh=outcome.mesh,
                turntable=outcome.turntable,
                tags={
                    "group": case.group,
                    "case": case.key,
                    "tags": " ".join(case.tags),
                    **outcome.facts,
                },
                metrics=outcome.metrics,
            )
            run.log_metrics({f"{plan.name}/done": count}, step=count)
            store.add(record, outcome.mesh)
            bar.advance(task)
            _console.print(_line(record, count, total), markup=False, highlight=False)


def _report(records: list[CaseRecord], wishes: Wishes, store: PassStore, run: SuiteRun) -> None:
    title = f"{wishes.suite} suite, {wishes.name}"
    html = comparison_page(title, records, store.mesh)
    run.log_page(html, "comparison.html")
    path = store.write_text("comparison.html", html)
    summaries = summarize_records(records)
    for model, summary in summaries.items():
        run.log_metrics({f"{model}/{name}": value for name, value in summary.items()})
    table = Table("metric", *summaries)
    for name in dict.fromkeys(name for found in summaries.values() for name in found):
        values = [found.get(name) for found in summaries.values()]
        table.add_row(name, *("" if value is None else f"{value:.4g}" for value in values))
    Console().print(table)
    print(path)


def _line(record: CaseRecord, count: int, total: int) -> str:
    seconds = record.metrics.get("generation_time_seconds", 0.0)
    state = f"{seconds:.2f} s" if record.success else f"failed: {record.error}"
    return f"[{count}/{total}] {record.model}: {record.case.prompt}: {state}"


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(
        *columns, TimeRemainingColumn(), console=_console, disable=not sys.stderr.isatty()
    )


def _parse(arguments: Sequence[str] | None) -> Wishes:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--models", nargs="+", default=[get_settings().default_model], help="registered names")
    add("--suite", choices=SUITES, default="smoke")
    add("--name", help="of the pass; the same name again goes on with it")
    add("--folder", type=Path, default=get_settings().output_dir / "suites")
    add("--checkpoint", help="auto, published, nano or a folder")
    add("--module", action="append", default=[], help="module that registers custom models")
    add("--workers", type=int, help="of each model at most")
    add("--runs", type=int, help="measured runs of each case")
    add("--limit", type=int, help="cases of each model at most")
    add("--clip", help="CLIP weights on this machine, for the similarity to the prompt")
    add("--gate", dest="baseline", action="store_const", const="check")
    add("--write-baseline", dest="baseline", action="store_const", const="write")
    found = parser.parse_args(arguments)
    return Wishes(
        models=tuple(found.models),
        suite=found.suite,
        name=found.name or datetime.now(UTC).strftime("%Y%m%d-%H%M%S"),
        folder=found.folder,
        checkpoint=found.checkpoint,
        modules=tuple(found.module),
        workers=found.workers,
        runs=found.runs or TEST_RUNS[found.suite],
        limit=found.limit,
        clip=found.clip,
        baseline=found.baseline,
    )


if __name__ == "__main__":
    sys.exit(main())
