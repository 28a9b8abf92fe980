"""What an evaluation of the handover hook on the WMN-LAB drives found, for the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from netpredict.evaluate.handover_real_result import AlarmRow, PingPongRow, Result, Span
from netpredict.evaluate.handover_wish import Table


def tables(result: Result) -> Iterator[Table]:
    """Ping-pongs at equal outage, AUC, alarms."""
    if result.ping_pongs:
        columns = ("linked", "delay", "outage", "at", "plain ping-pongs/min", "ours", "change", "95 %",
                   "plain handovers/min", "ours", "outage at equal handovers", "95 %")  # fmt: skip
        yield Table(
            "Beside plain A3 (radio cells told apart approximately)",
            columns,
            [_ping_pong_cells(each) for each in result.ping_pongs],
        )
    if result.warnings:
        rows = [
            [each.event, f"{each.ahead_s} s", str(each.positives), *_auc_cells(each.within), *_auc_cells(each.exactly)]
            for each in result.warnings
        ]
        yield Table(
            "Early warning, AUC", ("event", "ahead", "positives", "within", "95 %", "in that second", "95 %"), rows
        )
    if result.alarms:
        heads = ("within", "failures", "recall", "95 %", "precision", "95 %", "false in 10 minutes", "median lead")
        yield Table("Alarms of radio-link failure", heads, [_alarm_cells(each) for each in result.alarms])


def _ping_pong_cells(row: PingPongRow) -> list[object]:
    return [
        *(row.linking, f"+{row.decision_delay_ms} ms", f"{row.outage_ratio:.2%}", row.at),
        *(f"{each.ping_pongs_per_min:.3f}" for each in (row.plain, row.ours)),
        *(f"{row.change.value:+.1%}", f"{row.change.low:+.1%} … {row.change.high:+.1%}"),
        *(f"{each.handovers_per_min:.2f}" for each in (row.plain, row.ours)),
        *(f"{row.outage_change.value:+.1%}", f"{row.outage_change.low:+.1%} … {row.outage_change.high:+.1%}"),
    ]


def _auc_cells(span: Span) -> list[str]:
    return [f"{span.value:.4f}", f"{span.low:.4f} … {span.high:.4f}"]


def _alarm_cells(row: AlarmRow) -> list[object]:
    return [
        *(f"{row.horizon_s} s", row.events),
        *(f"{row.recall.value:.1%}", f"{row.recall.low:.1%} … {row.recall.high:.1%}"),
        *(f"{row.precision.value:.1%}", f"{row.precision.low:.1%} … {row.precision.high:.1%}"),
        *(f"{row.chosen.false_alarms_per_10_min:.2f}", f"{row.lead_s:g} s"),
    ]
