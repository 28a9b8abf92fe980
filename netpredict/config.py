"""The configuration: one TOML file, decoded strictly. The same definitions give the sample config and the JSON Schema.

Precedence, highest first: environment ``NETPREDICT__SECTION__KEY`` (JSON or bare text; never a secret), the file, the
default. An unknown key is an error. Names of sections inside ``[streams]``, ``[predictors]``, ``[hooks]`` and
``[actuators]`` are free; a plugin's own settings stand in ``options`` and are checked by the plugin.
"""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args
from urllib.parse import urlencode

import msgspec
from msgspec import Meta, Struct

from netpredict.calendar import check_holidays, check_time_zone
from netpredict.clock import parse_day_windows
from netpredict.errors import ConfigError
from netpredict.types import Mode, Quality, place_columns

T = TypeVar("T")
Positive = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1)]
Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]

PATIENCE_S = 10.0
"""An instance waits for another's lock, and may hang in a transaction, for so long at most."""
PLACES_MAX = 4096
"""Most places of a grid."""
GRID_VALUES_MAX = 2**18
"""Most values of one forecast of a grid: 1 MiB in memory, ``horizon_steps`` times that while its truths are to come."""


class Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the config file."""


class DaemonConfig(Section, frozen=True, kw_only=True):
    """The process."""

    data_dir: Annotated[str, Meta(description="Folder for the lock file, models and figures.")] = "data"
    commit_interval_s: Annotated[float, Meta(gt=0, le=60, description="A commit closes after this time, s.")] = 1.0
    commit_rows_max: Annotated[int, Meta(ge=1, description="... or after this many rows.")] = 100_000
    stall_after_s: Annotated[float, Meta(gt=0, description="Not alive when the loop stood still so long, s.")] = 60.0
    drain_s: Annotated[float, Meta(gt=0, description="Time a stop may take to finish the commit in flight, s.")] = 60.0
    seed: Annotated[int, Meta(ge=0, description="Seed of every pseudo-random choice.")] = 1
    log_format: Annotated[Literal["json", "console"], Meta(description="Form of log lines on stderr.")] = "json"
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Meta(description="Least level logged.")] = "info"


class KafkaConfig(Section, frozen=True, kw_only=True):
    """The broker; unused when the source is an in-process log."""

    bootstrap_servers: Annotated[list[str], Meta(min_length=1, description="host:port of some brokers.")] = (
        msgspec.field(default_factory=lambda: ["127.0.0.1:9092"])
    )
    group: Annotated[str, Meta(min_length=1, description="Consumer group; also names the progress in the store.")] = (
        "netpredict"
    )
    client_id: Annotated[str, Meta(description="Client id told to the broker.")] = "netpredict"
    group_instance_id: Annotated[str | None, Meta(description="Static member id (KIP-345), or none.")] = None
    assignment: Annotated[Literal["eager", "cooperative"], Meta(description="Rebalance protocol.")] = "eager"
    poll_records_max: Annotated[int, Meta(ge=1, le=100_000, description="Most records of one poll.")] = 5000
    poll_timeout_s: Annotated[float, Meta(gt=0, le=10, description="Longest wait of one poll, s.")] = 0.5
    fetch_min_bytes: Annotated[int, Meta(ge=1, description="Least bytes of one fetch.")] = 1
    fetch_max_wait_s: Annotated[float, Meta(gt=0, le=10, description="Longest wait of one fetch, s.")] = 0.1
    max_partition_fetch_bytes: Annotated[int, Meta(ge=1024, description="Most bytes per topic partition.")] = 8_388_608
    session_timeout_s: Annotated[float, Meta(ge=6, le=300, description="Group session timeout, s.")] = 45.0
    max_poll_interval_s: Annotated[float, Meta(ge=10, description="Longest time between polls, s.")] = 300.0
    start: Annotated[
        Literal["earliest", "latest"], Meta(description="Where a topic partition without stored offset begins.")
    ] = "earliest"
    rebuild_after_s: Annotated[
        float, Meta(gt=0, description="Rebuild the client when the lag stands still so long, s.")
    ] = 60.0
    security_protocol: Annotated[
        Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"],
        Meta(description="How the broker is spoken to; beyond loopback take SASL_SSL, or SSL with a certificate."),
    ] = "PLAINTEXT"
    ssl_ca_file: Annotated[
        str,
        Meta(description="Authorities that may sign the broker's certificate, PEM; none = those of the system."),
    ] = ""
    ssl_cert_file: Annotated[str, Meta(description="Our certificate and its chain, PEM, if the broker asks.")] = ""
    ssl_key_file: Annotated[
        str,
        Meta(
            description="Its key, PEM. Keys and passwords stand in files that others cannot read; systemd's are named"
            " like $CREDENTIALS_DIRECTORY/kafka-key."
        ),
    ] = ""
    ssl_key_password_file: Annotated[str, Meta(description="Password of the key, when it has one.")] = ""
    sasl_mechanism: Annotated[
        Literal["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"], Meta(description="How the password is shown.")
    ] = "SCRAM-SHA-512"
    sasl_username: Annotated[str, Meta(description="User name for SASL.")] = ""
    sasl_password_file: Annotated[str, Meta(description="Password for SASL; read anew for each connection.")] = ""
    sasl_in_clear: Annotated[
        bool, Meta(description="Allow SASL_PLAINTEXT beyond loopback: whoever listens sees all, PLAIN's password too.")
    ] = False

    @property
    def uses_tls(self) -> bool:
        """Whether what is said is encrypted and the broker shows a certificate."""
        return self.security_protocol.endswith("SSL")

    @property
    def uses_sasl(self) -> bool:
        """Whether we show a password."""
        return self.security_protocol.startswith("SASL")


class StoreConfig(Section, frozen=True, kw_only=True):
    """The SQL store, which is the authority for offsets."""

    url: Annotated[
        str,
        Meta(
            description="sqlite:///FILE, for one instance; postgresql://USER@HOST/DATABASE, which instances may share."
            " TLS by its query: ?sslmode=verify-full&sslrootcert=FILE, for a client certificate &sslcert=FILE"
            "&sslkey=FILE; no password goes to another host without."
        ),
    ] = "sqlite:///netpredict.db"
    password_file: Annotated[
        str, Meta(description="File with the password for PostgreSQL, not readable by everybody; empty = none.")
    ] = ""
    observations: Annotated[bool, Meta(description="Keep observations; training from the store needs them.")] = True
    retention_days: Annotated[
        float,
        Meta(gt=0, description="What is older than this is pruned: forecasts, scores, dead letters and the like."),
    ] = 14.0
    retention_gib: Annotated[
        float,
        Meta(ge=0, description="Above this size, GiB, the oldest forecasts and observations go earlier; 0 = any size."),
    ] = 0.0
    prune_rows: Annotated[int, Meta(ge=0, description="Most rows pruned behind each commit; 0 = never prune.")] = 50_000
    retry_s: Annotated[float, Meta(gt=0, description="First wait before a failed commit is tried again, s.")] = 0.5
    retry_max_s: Annotated[float, Meta(gt=0, description="Longest such wait, s.")] = 30.0


class HttpConfig(Section, frozen=True, kw_only=True):
    """Health and metrics."""

    host: Annotated[str, Meta(description="Address to listen on; loopback unless you know better.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="Port; 0 = any free one.")] = 9464
    enabled: Annotated[bool, Meta(description="Serve /livez /readyz /metrics.")] = True


class PublishConfig(Section, frozen=True, kw_only=True):
    """Forecasts and actions into Kafka, from the store, at least once and with ids that repeat."""

    enabled: Annotated[bool, Meta(description="Publish what each commit brings.")] = False
    forecasts_topic: Annotated[str, Meta(min_length=1, description="Topic of the forecasts.")] = "netpredict.forecasts"
    actions_topic: Annotated[str, Meta(min_length=1, description="Topic of what hooks decided.")] = "netpredict.actions"
    predictors: Annotated[
        Literal["active", "all"], Meta(description="Whose forecasts: the active predictor's, or shadows too.")
    ] = "active"
    outstanding_bytes_max: Annotated[
        int,
        Meta(ge=4_194_304, description="Most bytes not acknowledged by Kafka, and most bytes waiting before them."),
    ] = 67_108_864


class RouteConfig(Section, frozen=True, kw_only=True):
    """Which predictors serve the series of a stream whose key matches ``match`` (first route wins)."""

    match: Annotated[str, Meta(description="Shell pattern on the key, fields joined by |.")] = "*"
    active: Annotated[str, Meta(description="Predictor whose forecasts hooks see.")]
    shadows: Annotated[list[str], Meta(description="Predictors that run and are scored beside it.")] = []


class GridConfig(Section, frozen=True, kw_only=True):
    """Shape of the frames of a grid of radio cells."""

    rows: Annotated[int, Meta(ge=1, le=PLACES_MAX, description="Rows of places.")]
    columns: Annotated[int, Meta(ge=1, le=PLACES_MAX, description="Places of each row.")]


class ChecksConfig(Section, frozen=True, kw_only=True):
    """What the firewall of a stream knows of its senders, and how long it watches a series before it doubts it."""

    peak_kbps: Annotated[
        float,
        Meta(ge=0, description="No radio cell carries more, kbit/s (several users at once included); 0 = unknown."),
    ] = 0.0
    n_rb: Annotated[int, Meta(ge=0, le=275, description="Resource blocks of the carrier; 0 = unknown.")] = 0
    max_latency_s: Annotated[
        float,
        Meta(ge=0, description="Stamps older than ingest time - this are dead letters; 0 = any age, as in replays."),
    ] = 0.0
    stamp: Annotated[
        Literal["any", "begin"],
        Meta(description="begin: senders stamp the begin of a period, so it is over when its record comes."),
    ] = "any"
    watch: Annotated[
        list[str] | None,
        Meta(
            description="Columns checked for frozen values, for counters that run on and for ones that repeat others;"
            " not set: where period_s is 10 or more, those in %, kbit/s, kbit, ms and PRBs that are no settings. [] ="
            " none."
        ),
    ] = None
    frozen_steps: Annotated[
        int, Meta(ge=0, le=10_000, description="The same value so often is missing from then on; 0 = never.")
    ] = 12
    repeat_steps: Annotated[
        int, Meta(ge=0, le=10_000, description="Two columns equal so often are both missing; 0 = never.")
    ] = 8
    running_s: Annotated[
        float, Meta(ge=0, description="A column that only rises for so long is a running counter, s; 0 = never.")
    ] = 86_400.0
    quarantine_steps: Annotated[
        int,
        Meta(ge=1, le=10_000, description="Codes among dBm: so many dBm in a row before the series is believed again."),
    ] = 12
    shift_steps: Annotated[
        int, Meta(ge=0, le=100_000, description="A level of so many steps is compared with the one before; 0 = never.")
    ] = 96


class HindsightConfig(Section, frozen=True, kw_only=True):
    """How KPIs that are known in hindsight only (stay_cost, command_failure_ratio, access_failure_ratio of a link) are
    labelled for training, from the reports of each UE: what would have come of every link.
    """

    handover_cost: Annotated[
        float, Meta(ge=0, le=1, description="What a handover costs in the labels, in failures of a radio link.")
    ] = 0.1
    load_ratio: Annotated[
        float, Meta(ge=0, le=1, description="Load of radio cells where a report tells no SINR, share of their power.")
    ] = 0.3
    rounds: Annotated[
        int, Meta(ge=1, le=10, description="Trainings in a row: labels follow the policy on the forecasts before.")
    ] = 3
    piece_steps: Annotated[
        int, Meta(ge=8, le=1000, description="Steps of a link that are learnt from at a time, from cold.")
    ] = 40


class StreamConfig(Section, frozen=True, kw_only=True):
    """One flow of telemetry: a topic, its schema and what is forecast from it."""

    topic: Annotated[str, Meta(min_length=1, description="Kafka topic.")]
    decoder: Annotated[Name, Meta(description="Decoder plugin.")] = "json"
    decoder_options: Annotated[dict[str, Any], Meta(description="Its own settings.")] = {}
    schema: Annotated[str, Meta(description="Schema of the records, without its version.")]
    series_by: Annotated[list[str], Meta(min_length=1, description="Fields that name a series, coarsest first.")]
    period_s: Annotated[float, Meta(gt=0, description="Step of the time grid, s.")]
    phase_s: Annotated[float, Meta(ge=0, description="Offset of the time grid, s.")] = 0.0
    kpis: Annotated[list[str], Meta(min_length=1, description="KPIs that are forecast.")]
    features: Annotated[list[str], Meta(description="Other observed columns that predictors see.")] = []
    grid: Annotated[
        GridConfig | None,
        Meta(
            description="Shape of a frame where one message is a whole grid of radio cells, the grid one series:"
            " { rows = 12, columns = 13 }. Every KPI and feature then has a column for each place, like"
            " activity_count[3,7]."
        ),
    ] = None
    horizon_steps: Annotated[int, Meta(ge=1, le=512, description="How far ahead, steps.")] = 12
    quantile_levels: Annotated[list[float], Meta(min_length=1, description="Levels of the forecast, rising.")] = (
        msgspec.field(default_factory=lambda: [0.1, 0.5, 0.9])
    )
    max_gap_steps: Annotated[int, Meta(ge=0, le=1000, description="A longer gap restarts the series cold.")] = 10
    max_future_s: Annotated[float, Meta(ge=0, description="Stamps later than ingest time + this are dead letters.")] = (
        60.0
    )
    warm_steps: Annotated[int, Meta(ge=0, le=10_000, description="Steps a series needs before a model serves it.")] = 8
    season_s: Annotated[float, Meta(ge=0, description="Length of the season, s; 0 = none.")] = 0.0
    season_buckets: Annotated[int, Meta(ge=0, le=168, description="Bucket means kept per season.")] = 0
    time_zone: Annotated[str, Meta(description="IANA zone whose hour, weekday and holidays predictors see.")] = "UTC"
    holidays: Annotated[list[str], Meta(description='Days unlike others, e.g. "2013-12-25", by that zone.')] = []
    bucket_s: Annotated[
        Positive | None, Meta(description="Calibration and scores take effect at ends of buckets this long, s.")
    ] = None
    score_series_max: Annotated[
        int, Meta(ge=0, description="Series scored per topic partition; beyond it a hash sample.")
    ] = 50_000
    anchor_series_max: Annotated[
        int, Meta(ge=0, description="Series per topic partition whose states are kept for `models verify`; 0 = none.")
    ] = 16
    anchor_s: Annotated[float, Meta(gt=0, description="... about so often, s; a whole number of buckets.")] = 86_400.0
    series_max: Annotated[int, Meta(ge=1, description="Series kept per topic partition; more are refused.")] = 1_000_000
    series_ttl_s: Annotated[float, Meta(gt=0, description="A silent series is retired after this, s.")] = 604_800.0
    dead_letters_max: Annotated[
        int,
        Meta(
            ge=0, le=1_000_000, description="Dead letters kept whole, by reason; beyond it only offsets and counts ..."
        ),
    ] = 1000
    dead_letters_offsets: Annotated[
        int, Meta(ge=1, description="... of each stretch of so many offsets of a topic partition.")
    ] = 100_000
    checks: ChecksConfig = ChecksConfig()
    hindsight: HindsightConfig = HindsightConfig()
    routes: Annotated[list[RouteConfig], Meta(min_length=1, description="First match wins.")]

    def predictor_names(self) -> list[str]:
        """Predictors that the routes use, sorted."""
        return sorted({name for route in self.routes for name in (route.active, *route.shadows)})

    def kpi_columns(self) -> tuple[str, ...]:
        """Names of the columns that are forecast: the KPIs, on a grid once for each place."""
        return self._placed(self.kpis)

    def observed_columns(self) -> tuple[str, ...]:
        """Names of all observed columns, the forecast ones first."""
        return self._placed([*self.kpis, *self.features])

    def _placed(self, names: Sequence[str]) -> tuple[str, ...]:
        return place_columns(names, self.grid.rows, self.grid.columns) if self.grid else tuple(names)


class PredictorConfig(Section, frozen=True, kw_only=True):
    """A named predictor: its weights are shared by all series routed to it (a weight group)."""

    plugin: Annotated[Name, Meta(description="Predictor plugin.")]
    options: dict[str, Any] = {}


class GroupConfig(Section, frozen=True, kw_only=True):
    """A group of radio cells in which a hook has another mode (first match wins)."""

    name: Annotated[Name, Meta(description="Names the group in records.")]
    match: Annotated[str, Meta(min_length=1, description="Shell pattern on the radio cell.")]
    mode: Annotated[Mode, Meta(description="Mode of the hook there.")]


class DeviationConfig(Section, frozen=True, kw_only=True):
    """How far a member of an action's value may go from its baseline."""

    member: Annotated[str, Meta(min_length=1, description="Member of the value, e.g. rRMPolicyMinRatio.")]
    most: Annotated[float, Meta(ge=0, description="Farthest from the baseline, in the unit of the member.")]
    baseline: Annotated[float | None, Meta(description="The baseline; not set: only what baseline_why says.")] = None
    baseline_why: Annotated[
        str, Meta(description="Member of the action's why that is the baseline where it is a number.")
    ] = ""


class BreakerConfig(Section, frozen=True, kw_only=True):
    """When a hook disarms in a group of radio cells: its forecasts are no better than the plain ones any more."""

    kpis: Annotated[
        list[str],
        Meta(
            description="Forecast KPIs that are judged; none: those that the hook reads, and all of its stream at every"
            " lead where it reads none (a policy)."
        ),
    ] = []
    buckets: Annotated[
        int, Meta(ge=0, le=10_000, description="Newest score buckets that are judged; 0 = never disarm.")
    ] = 8
    rows_min: Annotated[int, Meta(ge=1, description="Least scored forecasts of a KPI in them.")] = 500
    blind_buckets: Annotated[
        int,
        Meta(
            ge=0,
            le=10_000,
            description="Disarms when for more score buckets than this, and than those judged, there were never so"
            " many: a hook whose own actions hide every truth stops, until enough truths have come; 0 = never.",
        ),
    ] = 16
    skill_min: Annotated[
        float,
        Meta(lt=1, description="Disarms when skill against the better of naive and seasonal naive is this or less ..."),
    ] = 0.0
    skill_rearm: Annotated[float, Meta(lt=1, description="... and arms again only above this.")] = 0.02
    coverage_off: Annotated[
        float,
        Meta(gt=0, lt=1, description="Disarms when the share of truths inside the outer levels is so far off."),
    ] = 0.15
    coverage_rearm: Annotated[float, Meta(gt=0, lt=1, description="Arms again only when it is off by no more.")] = 0.1


class RevertConfig(Section, frozen=True, kw_only=True):
    """When an action is taken back by itself: a KPI of its series became worse behind it."""

    kpi: Annotated[str, Meta(description="Observed column that is compared; empty = none.")] = ""
    stream: Annotated[
        str,
        Meta(
            description="Stream of that column, over all series of the action's radio cell; empty = the hook's own, of"
            " the series that decided."
        ),
    ] = ""
    worse: Annotated[Literal["higher", "lower"], Meta(description="Which way it is worse.")] = "lower"
    change: Annotated[
        float, Meta(ge=0, description="Reverted when its mean is worse by more than this, in its own unit ...")
    ] = 0.0
    window_s: Annotated[float, Meta(gt=0, description="... in so long behind the action against before it, s.")] = 900.0


class HookConfig(Section, frozen=True, kw_only=True):
    """An adaptation hook on one stream."""

    plugin: Annotated[Name, Meta(description="Hook plugin.")]
    stream: Annotated[str, Meta(description="Stream whose forecasts it sees.")]
    mode: Annotated[
        Mode,
        Meta(description="shadow records what it would do, assist does it once a person approves it, auto does it."),
    ] = Mode.SHADOW
    groups: Annotated[
        list[GroupConfig],
        Meta(description='Radio cells with another mode: [{ name = "lab", match = "cell-1*", mode = "auto" }].'),
    ] = []
    actuators: Annotated[list[str], Meta(description="Actuators that each action goes to.")] = msgspec.field(
        default_factory=lambda: ["log"]
    )
    cooldown_s: Annotated[
        float, Meta(ge=0, description="Least time between two applied actions on one attribute, s.")
    ] = 60.0
    rate_per_min: Annotated[float, Meta(gt=0, description="Most applied actions of the hook per minute.")] = 600.0
    blackout_utc: Annotated[list[str], Meta(description='Hours without actions, e.g. "22:00-05:30".')] = []
    effect_s: Annotated[
        float,
        Meta(
            gt=0,
            description="How long an action holds, s, from the slot (the window of a policy) that it was decided for;"
            " behind that it is not applied any more, whatever a longer valid_for_s says. What is to stand longer is"
            " refreshed at half of it; below two periods of the stream (two windows of a policy) it cannot be.",
        ),
    ] = 900.0
    priority: Annotated[
        int, Meta(ge=0, le=1000, description="A hook of a higher priority takes an attribute from another one.")
    ] = 0
    blast_ratio: Annotated[
        float, Meta(gt=0, le=1, description="Most radio cells of the stream changed within an hour, as a share.")
    ] = 1.0
    sources: Annotated[
        list[Literal["model", "seasonal", "naive"]],
        Meta(min_length=1, description="Rungs of the ladder whose forecasts may act."),
    ] = msgspec.field(default_factory=lambda: ["model", "seasonal", "naive"])
    refuse_quality: Annotated[list[str], Meta(description="Quality flags with which a forecast may not act.")] = (
        msgspec.field(default_factory=lambda: ["not_finite", "failed", "suspect", "approximate"])
    )
    deviations: Annotated[
        list[DeviationConfig],
        Meta(description='Bounds: [{ member = "rRMPolicyMinRatio", most = 30.0, baseline = 50.0 }].'),
    ] = []
    holdout_ratio: Annotated[
        float, Meta(ge=0, lt=1, description="Share of the radio cells, chosen by hash, that never get an action.")
    ] = 0.0
    exclude: Annotated[
        Literal["effect", "none"],
        Meta(
            description="effect: until an action ends its radio cell and its neighbours are left out of scores and"
            " training; none: it changes nothing that is observed."
        ),
    ] = "effect"
    neighbours: Annotated[
        dict[str, list[str]], Meta(description="Radio cells that an action on a radio cell changes too.")
    ] = {}
    breaker: BreakerConfig = BreakerConfig()
    revert: RevertConfig = RevertConfig()
    options: dict[str, Any] = {}

    def mode_of(self, radio_cell_id: str) -> Mode:
        """The mode in which it decides for a radio cell."""
        group = self.group_of(radio_cell_id)
        return self.mode if group is None else group.mode

    def group_of(self, radio_cell_id: str) -> GroupConfig | None:
        """The first group that a radio cell is in."""
        return next((group for group in self.groups if fnmatchcase(radio_cell_id, group.match)), None)


class ActuatorConfig(Section, frozen=True, kw_only=True):
    """A named actuator."""

    plugin: Annotated[Name, Meta(description="Actuator plugin.")]
    options: dict[str, Any] = {}


class LearnConfig(Section, frozen=True, kw_only=True):
    """Retraining from stored observations in a child process, and trials of what it gives."""

    enabled: Annotated[bool, Meta(description="Retrain by the clock and when forecasts become bad.")] = False
    cron: Annotated[str, Meta(description="When to retrain: five cron fields, UTC.")] = "17 2 * * *"
    window_utc: Annotated[
        list[str], Meta(description='Hours in which a training may begin, e.g. "01:00-05:00"; none = any.')
    ] = []
    history_steps: Annotated[int, Meta(ge=32, description="Newest steps per series that are trained on.")] = 2000
    series_max: Annotated[int, Meta(ge=1, description="Series sampled for training.")] = 2000
    validation_ratio: Annotated[float, Meta(gt=0, lt=1, description="Newest share held out.")] = 0.2
    timeout_s: Annotated[float, Meta(gt=0, description="A training child is ended after this, s.")] = 3600.0
    nice: Annotated[int, Meta(ge=0, le=19, description="Niceness of the training child.")] = 10
    threads: Annotated[int, Meta(ge=1, le=64, description="Threads of the training child.")] = 1
    memory_max_bytes: Annotated[
        int, Meta(ge=2**28, description="A training child that uses more resident memory is ended.")
    ] = 4_294_967_296
    keep_versions: Annotated[int, Meta(ge=2, description="Artefacts kept per predictor.")] = 5
    trigger_buckets: Annotated[
        int,
        Meta(ge=0, description="Newest score buckets that may trigger a retraining; 0 = retrain by the clock only."),
    ] = 8
    trigger_hold: Annotated[int, Meta(ge=1, description="... in a row, each a bucket later, before they do.")] = 3
    trigger_rows_min: Annotated[int, Meta(ge=1, description="Least scored forecasts of a KPI in them.")] = 500
    trigger_skill_below: Annotated[
        float, Meta(lt=1, description="Bad in absolute terms: skill against naive is below this ...")
    ] = 0.0
    trigger_coverage_off: Annotated[
        float, Meta(gt=0, lt=1, description="... or the share of truths inside the outer levels is so far off.")
    ] = 0.15
    trigger_drop: Annotated[
        float, Meta(ge=0, description="Worse than its own baseline: by more than this, in the same measure.")
    ] = 0.1
    held_out_margin: Annotated[
        float,
        Meta(ge=0, description="A candidate may lose this share to the version that serves on the held-out slice."),
    ] = 0.02
    challenge_buckets_min: Annotated[
        int, Meta(ge=0, description="Score buckets of a trial before its first look; 0 = promote without a trial.")
    ] = 24
    challenge_buckets_max: Annotated[int, Meta(ge=1, description="... before it ends without a winner.")] = 96
    challenge_rows_min: Annotated[int, Meta(ge=1, description="Least scored forecasts of a bucket that counts.")] = 50
    challenge_alpha: Annotated[
        float, Meta(gt=0, lt=1, description="Chance to promote or refuse by luck, over all looks.")
    ] = 0.05
    challenge_max_s: Annotated[float, Meta(gt=0, description="A trial without enough buckets ends after this, s.")] = (
        604_800.0
    )


class Config(Section, frozen=True, kw_only=True):
    """The whole file."""

    daemon: DaemonConfig = DaemonConfig()
    kafka: KafkaConfig = KafkaConfig()
    store: StoreConfig = StoreConfig()
    http: HttpConfig = HttpConfig()
    learn: LearnConfig = LearnConfig()
    publish: PublishConfig = PublishConfig()
    streams: dict[Name, StreamConfig] = {}
    predictors: dict[Name, PredictorConfig] = {}
    hooks: dict[Name, HookConfig] = {}
    actuators: dict[Name, ActuatorConfig] = {}

    @property
    def store_url(self) -> str:
        """``store.url`` with what else it takes to get in, and how long to wait for others: less than Kafka's group."""
        url = self.store.url
        if not url.startswith("postgres"):
            return url
        query = {"patience_s": f"{min(PATIENCE_S, self.kafka.session_timeout_s / 3):g}"}
        if self.store.password_file:
            query["password_file"] = self.store.password_file
        return f"{url}{'&' if '?' in url else '?'}{urlencode(query)}"


def load_config(path: Path | None, environment: Mapping[str, str] | None = None) -> Config:
    """Read, override from the environment and check. ConfigError names the key and what is allowed.

    It names the variable too when the value came from the environment.
    """
    environment = os.environ if environment is None else environment
    raw: dict[str, Any] = {}
    if path is not None:
        try:
            raw = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not TOML: {error}") from error
    with naming_variables(environment):
        return parse_config(_overridden(raw, environment))


@contextmanager
def naming_variables(environment: Mapping[str, str] | None = None) -> Iterator[None]:
    """A ConfigError about a key that the environment set leaves with the name of the variable."""
    try:
        yield
    except ConfigError as error:
        text = str(error)
        for name, path in _variables(os.environ if environment is None else environment):
            if _is_about(text, path) and name not in text:
                raise type(error)(f"{text} (set by {name})") from error
        raise


def _is_about(text: str, path: Sequence[str]) -> bool:
    """Whether the text of a ConfigError is about the key, or names it as part of a table above it."""
    key = ".".join(path)
    return text.startswith((f"{key}:", f"{key}.", f"{key}[")) or any(
        text.startswith(f"{'.'.join(path[:depth]) or 'config'}:") and re.search(rf"\b{re.escape(path[depth])}\b", text)
        for depth in range(len(path))
    )


def parse_config(raw: Mapping[str, Any]) -> Config:
    """Decode and cross-check a config given as plain values."""
    try:
        config = msgspec.convert(raw, Config, strict=True)
    except msgspec.ValidationError as error:
        raise ConfigError(_located(raw, error)) from error
    _check_finite(msgspec.to_builtins(config))
    _check(config)
    return config


def _located(raw: Mapping[str, Any], error: msgspec.ValidationError) -> str:
    """The key, then what is wrong with it. msgspec does not say in which stream or plugin: each is converted alone."""
    for name, section, value in _parts(raw):
        try:
            msgspec.convert(value, section, strict=True)
        except msgspec.ValidationError as found:
            return keyed(name, found)
    return keyed("", error)


def keyed(name: str, error: msgspec.ValidationError) -> str:
    """What msgspec found in the value of ``name``, behind the whole key."""
    what, _, place = str(error).partition(" - at `")
    key = name + place.removeprefix("$").removesuffix("`")
    return f"{key.removeprefix('.') or 'config'}: {what}"


def _parts(raw: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """(name, type, value) of every section, and of every entry of a section that holds named ones."""
    for field in msgspec.structs.fields(Config):
        value = raw.get(field.name, {})
        if isinstance(field.type, type):
            yield field.name, field.type, value
        elif isinstance(value, dict):
            key, entry = get_args(field.type)
            for name, part in value.items():
                yield f"{field.name}: the name {name!r}", key, name
                yield f"{field.name}.{name}", entry, part


def _variables(environment: Mapping[str, str]) -> Iterator[tuple[str, list[str]]]:
    """(name, path of the key) of the variables that set something."""
    for name in sorted(environment):
        path = name.lower().split("__")
        if path[0] == "netpredict" and len(path) > 2:
            yield name, path[1:]


def _overridden(raw: dict[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    for name, path in _variables(environment):
        table = raw
        for part in path[:-1]:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                raise ConfigError(f"{name}: {part} is not a table")
        try:
            table[path[-1]] = msgspec.json.decode(environment[name])
        except msgspec.DecodeError:
            table[path[-1]] = environment[name]
    return raw


def _check_finite(value: Any, where: str = "") -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where}: must be a finite number, got {value}")
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        _check_finite(part, f"{where}.{key}" if where else str(key))


def check_servers(where: str, servers: Sequence[str]) -> None:
    """ConfigError unless each is host:port."""
    for server in servers:
        host, _, port = server.strip().rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise ConfigError(f"{where}: must be host:port with a port of 1 to 65535, got {server!r}")


LOOPBACK = ("localhost", "127.0.0.1", "::1")


def _check_kafka(kafka: KafkaConfig) -> None:
    check_servers("kafka.bootstrap_servers", kafka.bootstrap_servers)
    protocol = kafka.security_protocol
    for name in ("ssl_ca_file", "ssl_cert_file", "ssl_key_file", "ssl_key_password_file"):
        if getattr(kafka, name) and not kafka.uses_tls:
            raise ConfigError(f"kafka.{name}: has no use with security_protocol {protocol}; take SSL or SASL_SSL")
    for name in ("sasl_username", "sasl_password_file"):
        if bool(getattr(kafka, name)) != kafka.uses_sasl:
            need = "is needed with" if kafka.uses_sasl else "has no use with"
            raise ConfigError(f"kafka.{name}: {need} security_protocol {protocol}")
    if bool(kafka.ssl_cert_file) != bool(kafka.ssl_key_file):
        raise ConfigError("kafka.ssl_cert_file: is given together with kafka.ssl_key_file, or not at all")
    if kafka.ssl_key_password_file and not kafka.ssl_key_file:
        raise ConfigError("kafka.ssl_key_password_file: has no use without kafka.ssl_key_file")
    hosts = [server.strip().rpartition(":")[0].strip("[]") for server in kafka.bootstrap_servers]
    if protocol == "SASL_PLAINTEXT" and not kafka.sasl_in_clear and not set(hosts) <= set(LOOPBACK):
        raise ConfigError(
            "kafka.security_protocol: SASL_PLAINTEXT beyond loopback hides nothing; take SASL_SSL, or allow it by"
            " kafka.sasl_in_clear"
        )


def _check(config: Config) -> None:
    _check_kafka(config.kafka)
    topics = [stream.topic for stream in config.streams.values()]
    if len(set(topics)) != len(topics):
        raise ConfigError("streams: two streams read the same topic; give each stream a topic of its own")
    if config.publish.enabled:
        for name in ("forecasts_topic", "actions_topic"):
            if (topic := getattr(config.publish, name)) in topics:
                raise ConfigError(f"publish.{name}: a stream reads the topic {topic!r}; publish to one of its own")
    for name, stream in config.streams.items():
        _check_stream(f"streams.{name}", stream, config)
    _check_learn(config.learn)
    if config.store.password_file and not config.store.url.startswith("postgres"):
        raise ConfigError("store.password_file: only a PostgreSQL store has a password")
    for name, hook in config.hooks.items():
        if hook.stream not in config.streams:
            raise ConfigError(f"hooks.{name}.stream: no stream named {hook.stream!r}")
        for actuator in hook.actuators:
            if actuator not in config.actuators:
                raise ConfigError(f"hooks.{name}.actuators: no actuator named {actuator!r}")
        _check_hook(f"hooks.{name}", hook)
        _check_judged(f"hooks.{name}", hook, config)


def _check_judged(where: str, hook: HookConfig, config: Config) -> None:
    own, revert = config.streams[hook.stream], hook.revert
    if unknown := [kpi for kpi in hook.breaker.kpis if kpi not in own.kpi_columns()]:
        raise ConfigError(f"{where}.breaker.kpis: streams.{hook.stream} forecasts no {', '.join(unknown)}")
    name = revert.stream or hook.stream
    if name not in config.streams:
        raise ConfigError(f"{where}.revert.stream: no stream named {name!r}")
    compared = config.streams[name]
    if revert.kpi and revert.kpi not in compared.observed_columns():
        raise ConfigError(f"{where}.revert.kpi: streams.{name} has no column {revert.kpi!r}")
    if name != hook.stream and compared.series_by[-1] != own.series_by[-1]:
        raise ConfigError(f"{where}.revert.stream: the series of streams.{name} end with {compared.series_by[-1]!r},"
                          f" those of streams.{hook.stream} with {own.series_by[-1]!r}")  # fmt: skip


def _check_hook(where: str, hook: HookConfig) -> None:
    parse_day_windows(hook.blackout_utc, f"{where}.blackout_utc")
    names = [group.name for group in hook.groups]
    if len(set(names)) != len(names):
        raise ConfigError(f"{where}.groups: a name stands twice")
    known = [flag.name.lower() for flag in Quality if flag.name]
    if unknown := [name for name in hook.refuse_quality if name not in known]:
        raise ConfigError(f"{where}.refuse_quality: no flag {', '.join(unknown)}; there are {', '.join(known)}")
    breaker = hook.breaker
    if breaker.skill_rearm < breaker.skill_min or breaker.coverage_rearm > breaker.coverage_off:
        raise ConfigError(f"{where}.breaker: it must not arm again where it disarms: see skill_rearm, coverage_rearm")
    for bound in hook.deviations:
        if bound.baseline is None and not bound.baseline_why:
            raise ConfigError(f"{where}.deviations: {bound.member} needs a baseline or a baseline_why")


def _check_learn(learn: LearnConfig) -> None:
    if learn.challenge_buckets_min > learn.challenge_buckets_max:
        raise ConfigError(
            f"learn.challenge_buckets_min: must not be above challenge_buckets_max, {learn.challenge_buckets_max}"
        )
    parse_day_windows(learn.window_utc, "learn.window_utc")


def _check_calendar(where: str, stream: StreamConfig) -> None:
    key = f"{where}.time_zone"
    try:
        check_time_zone(stream.time_zone)
        key = f"{where}.holidays"
        check_holidays(stream.holidays)
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from error


def _check_stream(where: str, stream: StreamConfig, config: Config) -> None:
    levels = stream.quantile_levels
    if levels != sorted(set(levels)) or not all(0 < level < 1 for level in levels):
        raise ConfigError(f"{where}.quantile_levels: must rise and lie between 0 and 1, got {levels}")
    if 0.5 not in levels:
        raise ConfigError(f"{where}.quantile_levels: must contain 0.5, the point forecast, got {levels}")
    columns = [*stream.kpis, *stream.features]
    if len(set(columns)) != len(columns):
        raise ConfigError(f"{where}: a column stands twice in kpis and features")
    if unknown := [column for column in stream.checks.watch or [] if column not in columns]:
        raise ConfigError(f"{where}.checks.watch: no kpi or feature is named {', '.join(unknown)}")
    if any("[" in column for column in columns):
        raise ConfigError(f"{where}: a column names no place; give the whole grid by the key grid")
    if stream.grid is not None:
        _check_grid(where, stream, stream.grid)
    if bool(stream.season_s) != bool(stream.season_buckets):
        raise ConfigError(f"{where}: season_s and season_buckets are given together or not at all")
    _check_calendar(where, stream)
    if stream.series_ttl_s < stream.period_s * (2 * stream.horizon_steps + stream.max_gap_steps):
        raise ConfigError(f"{where}.series_ttl_s: must span two horizons and the longest gap")
    if round(stream.period_s * 1_000_000) < 1:
        raise ConfigError(f"{where}.period_s: below one microsecond")
    if stream.phase_s >= stream.period_s:
        raise ConfigError(f"{where}.phase_s: must be below period_s, {stream.period_s}")
    for route in stream.routes:
        if len({route.active, *route.shadows}) != 1 + len(route.shadows):
            raise ConfigError(f"{where}.routes: a predictor stands twice in the route {route.match!r}")
        for predictor in (route.active, *route.shadows):
            if predictor not in config.predictors:
                raise ConfigError(f"{where}.routes: no predictor named {predictor!r}")
    if config.store.retention_days * 86_400 < 2 * stream.horizon_steps * stream.period_s:
        raise ConfigError(f"store.retention_days: must span two horizons of {where}")


def _check_grid(where: str, stream: StreamConfig, grid: GridConfig) -> None:
    places = grid.rows * grid.columns
    if places > PLACES_MAX:
        raise ConfigError(f"{where}.grid: {grid.rows} x {grid.columns} are {places} places, at most {PLACES_MAX}")
    values = places * len(stream.kpis) * stream.horizon_steps * len(stream.quantile_levels)
    if values > GRID_VALUES_MAX:
        raise ConfigError(
            f"{where}: a forecast of {places} places, {len(stream.kpis)} kpis, {stream.horizon_steps} horizon_steps and"
            f" {len(stream.quantile_levels)} quantile_levels has {values} values, at most {GRID_VALUES_MAX}"
        )
