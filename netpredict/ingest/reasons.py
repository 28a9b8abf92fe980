"""Every reason for which telemetry is not taken as it came: one closed list, each with what it means.

A *refused* record is a dead letter. A value that is *missing* was taken out of a record that goes on without it. A
record *doubted* is stored with the flag ``suspect``, and nothing is learnt, forecast or decided from it. A *notice*
changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple


class Reason(NamedTuple):
    """What becomes of what was found, and one line that tells it."""

    effect: Literal["refused", "missing", "doubted", "notice"]
    meaning: str


REASONS: Mapping[str, Reason] = {
    # by decoders
    "tombstone": Reason("refused", "the record has no value"),
    "oversize": Reason("refused", "longer, or holding more, than the decoder's bounds"),
    "undecodable": Reason("refused", "not JSON, not UTF-8, nested too deep, or a broken gzip"),
    "schema": Reason("refused", "a message of another schema, version or domain"),
    "invalid": Reason("refused", "a field is absent or of the wrong type, or nothing of it is configured"),
    "shape": Reason("refused", "a frame of other rows and columns than the grid of the stream"),
    "period": Reason("refused", "the stamps do not span the granularity period: begin or end cannot be told"),
    # stamps
    "clock_unset": Reason("refused", "the stamp is 0: the sender's clock was not set, its latency would be the clock"),
    "time_unit": Reason("refused", "the stamp is no time in µs of the years 2015 to 2099: ms, s or a number cut short"),
    "future": Reason("refused", "stamped later than Kafka received it, by more than max_future_s"),
    "latency": Reason("refused", "stamped earlier than Kafka received it, by more than checks.max_latency_s"),
    "end_for_begin": Reason("refused", "its period was not over when Kafka received it: the end stands for the begin"),
    # rows
    "identity": Reason("refused", "an identity is empty, too long, or has characters that no name has"),
    "no_route": Reason("refused", "no route of the stream matches the series"),
    "series_cap": Reason("refused", "a new series beyond series_max"),
    "no_value": Reason("refused", "no KPI of the stream is in it, or none that is possible"),
    "late": Reason("refused", "older than the newest slot of its series, or silent for longer than series_ttl_s"),
    # values, each by itself
    "range": Reason("missing", "outside the range of the KPI, and no known trap"),
    "negative": Reason("missing", "a negative count, volume, rate or delay"),
    "count_for_percent": Reason("missing", "more than 100 %: a count or a sum in a field of percent"),
    "delay_unit": Reason("missing", "a delay above 300 ms: µs for 0.1 ms"),
    "bad_index": Reason("missing", "an index or a number of layers that no table has"),
    "rate_for_share": Reason("missing", "a share above 1: a rate times 1e6"),
    "half_db": Reason("missing", "a setting of 16 to 30: steps of half a dB for dB"),
    "code_for_dbm": Reason("missing", "a positive number in a field of dBm: a reported code (or dBm for a code)"),
    "code_for_db": Reason("missing", "a number up to 127 beyond the range of a ratio in dB: a reported code"),
    "open_below": Reason("missing", "the first code: it only says that the value is below the range"),
    "above_peak": Reason("missing", "more than a radio cell carries, checks.peak_kbps: kbit for Mbit, bit for kbit"),
    # values beside others of the same record
    "prb_above_carrier": Reason("missing", "more resource blocks than the carrier has, checks.n_rb"),
    "prb_above_available": Reason("missing", "more resource blocks used than available"),
    "impossible_zero": Reason("missing", "zero although the record shows use: PRBs at 0 % or throughput 0 with volume"),
    # values beside earlier ones of their series
    "frozen": Reason("missing", "the same value that is neither zero nor full, checks.frozen_steps times"),
    "repeats_another": Reason("missing", "two columns equal and not zero for checks.repeat_steps: one is a copy"),
    "running_counter": Reason("missing", "it only rose for checks.running_s: a running counter read as a gauge"),
    "mixed_signs": Reason("doubted", "dBm and codes in one series: it is in quarantine for checks.quarantine_steps"),
    "level_shift": Reason("notice", "the level of a series moved by one step of its codes: upper for lower edge?"),
}
