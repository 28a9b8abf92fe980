"""``netpredict compare``: predictors trained and timed on the same split, as one HTML report that needs no network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from netpredict.cli.options import AsJson, MappingFile, MappingPairs, Table, at_most_one
from netpredict.cli.terminal import print_json, print_table, progress, say
from netpredict.errors import DataError

if TYPE_CHECKING:
    from netpredict.evaluate.cases import Case
    from netpredict.evaluate.compare import Asked, Comparison

PREDICTORS = "simple_rnn,gru,lstm,naive"
COLUMNS = ("predictor", "mae", "rmse", "pinball", "skill", "coverage", "training_s", "train_epoch_s", "train_epochs")


def compare(
    on: Annotated[
        str | None,
        typer.Option("--on", help="sine, or ucc5g, milan-hourly, nist-prosas or tractor (in $NETPREDICT_DATA)."),
    ] = None,
    table: Table = None,
    mapping: MappingFile = None,
    pairs: MappingPairs = None,
    predictors: Annotated[str, typer.Option("--predictors", help="Predictor plugins, by commas.")] = PREDICTORS,
    kpi: Annotated[str | None, typer.Option("--kpi", help="KPI to forecast [default: that of the case].")] = None,
    horizon_steps: Annotated[
        int | None, typer.Option("--horizon-steps", min=1, max=512, help="How far ahead [default: that of the case].")
    ] = None,
    period_s: Annotated[
        float | None, typer.Option("--period-s", min=1e-3, max=1e7, help="Grid of a table, s [default: its spacing].")
    ] = None,
    period_steps: Annotated[float, typer.Option("--period-steps", min=2, max=1e6, help="Period of the sine.")] = 40.0,
    noise: Annotated[
        float, typer.Option("--noise", min=0, max=1e6, help="Noise of the sine, its amplitude is 1.")
    ] = 0.1,
    units: Annotated[int, typer.Option("--units", min=1, max=1024, help="Units of each network.")] = 32,
    train_epochs: Annotated[
        int | None, typer.Option("--train-epochs", min=1, max=10_000, help="Most of them [default: 15, quick 6].")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**31, help="Of the sine, and of the training.")] = 1,
    quick: Annotated[bool, typer.Option("--quick", help="Less data and fewer train_epochs: about a minute.")] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The report [default: compare-CASE.html]; JSON lies beside it."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train, time and score predictors on the same split, and write one HTML report.

    The report works offline: which predictor won and by how much, training times, loss curves, roll-outs against the
    truth, errors by lead time. The held-out part is the newest fifth; no network sees it before it is scored.
    """
    from netpredict.evaluate.compare import Asked

    at_most_one(on=on, table=table)
    if table is not None:
        case = _of_table(table, mapping, pairs, quick, kpi, horizon_steps, period_s)
    else:
        case = _named(on or "sine", quick, kpi, horizon_steps, seed, period_steps, noise)
    asked = Asked(seed, units, train_epochs or (6 if quick else 15))
    report = output or Path(f"compare-{case.name}.html")
    _check_writable(report)
    comparison = _compare(case, [name.strip() for name in predictors.split(",") if name.strip()], asked)
    size_bytes = _write(comparison, report)
    _tell(comparison, report, size_bytes, as_json)


def _named(
    name: str, quick: bool, kpi: str | None, horizon_steps: int | None, seed: int, period_steps: float, noise: float
) -> Case:
    from netpredict.evaluate.cases import SINE, known_case, sine_case
    from netpredict.traces.sine import SineConfig

    if name == SINE:
        config = SineConfig(seed=seed, period_steps=period_steps, noise=noise, steps=1000 if quick else 2000)
        return sine_case(config, horizon_steps or 20)
    return known_case(name, quick=quick, kpi=kpi, horizon_steps=horizon_steps)


def _of_table(
    path: Path,
    mapping: Path | None,
    pairs: list[str] | None,
    quick: bool,
    kpi: str | None,
    horizon_steps: int | None,
    period_s: float | None,
) -> Case:
    from netpredict.cli.telemetry import mapping_of
    from netpredict.evaluate.cases import table_case

    known = mapping_of(path, mapping, pairs)
    return table_case(path, known, quick=quick, kpi=kpi, horizon_steps=horizon_steps, period_s=period_s)


def _check_writable(report: Path) -> None:
    """Before minutes of training, not after."""
    if not report.parent.is_dir():
        raise DataError(f"there is no folder {report.parent} for the report")


def _compare(case: Case, predictors: list[str], asked: Asked) -> Comparison:
    from rich.progress import BarColumn, TextColumn

    from netpredict.evaluate.compare import compare as work

    losses = TextColumn("{task.fields[losses]}", markup=False)
    with progress(TextColumn("{task.description}", markup=False), BarColumn(), losses) as shown:
        tasks = {name: shown.add_task(name, total=None, losses="") for name in predictors}

        def told(name: str, done: int, total: int, loss: float, validation_loss: float, left_s: float) -> None:
            text = f"loss {loss:.4f}, validation {validation_loss:.4f}, {left_s:.0f} s left"
            shown.update(tasks[name], completed=done, total=total, losses=text)

        return work(case, predictors, asked, told)


def _write(comparison: Comparison, report: Path) -> int:
    """Report and JSON; the size of the report, bytes."""
    import msgspec

    from netpredict.evaluate.report import write_report

    page = write_report(comparison).encode()
    document = msgspec.json.format(msgspec.json.encode(comparison), indent=1)
    for path, content in ((report, page), (report.with_suffix(".json"), document)):
        try:
            path.write_bytes(content)
        except OSError as error:
            raise DataError(f"cannot write {path}: {error.strerror}") from error
    return len(page)


def _tell(comparison: Comparison, report: Path, size_bytes: int, as_json: bool) -> None:
    rows = [
        {
            "predictor": entry.predictor,
            **{name: getattr(entry.overall, name) for name in ("mae", "rmse", "pinball", "skill", "coverage")},
            "training_s": entry.training_s,
            "train_epoch_s": entry.usual_train_epoch_s,
            "train_epoch_processor_s": entry.usual_train_epoch_processor_s,
            "train_epochs": len(entry.loss),
        }
        for entry in comparison.entries
    ]
    beside = report.with_suffix(".json")
    if as_json:
        verdict = {"best": comparison.verdict.best, "is_clear": comparison.verdict.is_clear}
        told = {"report": str(report), "report_bytes": size_bytes, "json": str(beside), "case": comparison.case}
        print_json({**told, **verdict, "predictors": rows})
        return
    print_table(f"{comparison.case}: {comparison.kpi}", COLUMNS, [[row[name] for name in COLUMNS] for row in rows])
    say(f"{report} ({size_bytes / 1e6:.1f} MB, opens without a network); the numbers are in {beside}")
