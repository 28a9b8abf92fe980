"""The wire schemas of netpredict's own telemetry, one JSON object a Kafka record.

Every message names its schema as ``netpredict.<stream>/<major>`` or ``netpredict.<stream>/<major>.<minor>``.
A minor version only adds optional fields, so any minor of a known major is read. A field that is absent or
null was not measured. Units stand in the names; ranges are checked by the firewall, not here. The records are
keyed by the coarsest field of the series (the UE where there is one, else the radio cell or the grid).

``SCHEMAS`` is what netpredict reads, ``PUBLISHED`` what it sends: forecasts and actions, as CloudEvents in binary mode,
keyed in the same way. They come at least once; a repeated message bears the id (``ce_id``) of the first.
"""

from typing import Any, Literal, TypeAlias

from msgspec import Struct


class Traffic(Struct, gc=False, omit_defaults=True):
    """Load of one radio cell over one period that begins at ``event_time_us`` (µs since the epoch, UTC)."""

    schema: str
    radio_cell_id: str
    event_time_us: int
    dl_throughput_kbps: float | None = None
    ul_throughput_kbps: float | None = None
    prb_use_dl_percent: float | None = None
    prb_use_ul_percent: float | None = None
    connected_ues: float | None = None
    suspect: bool = False


class Neighbour(Struct, gc=False, omit_defaults=True):
    """One neighbour of a measurement report. ``approximate``: the identity is a guess (rank, not PCI)."""

    radio_cell_id: str
    rsrp_dbm: float | None = None
    rsrq_db: float | None = None
    sinr_db: float | None = None
    approximate: bool = False


class Rsrp(Struct, gc=False, omit_defaults=True):
    """One measurement report at ``event_time_us`` (µs, UTC): the serving radio cell and its neighbours.

    With ``ue_id`` the report is that of one UE, without it an average over the UEs of the radio cell.
    """

    schema: str
    radio_cell_id: str
    event_time_us: int
    ue_id: str | None = None
    rsrp_dbm: float | None = None
    rsrq_db: float | None = None
    sinr_db: float | None = None
    neighbours: list[Neighbour] = []
    suspect: bool = False


class ChannelState(Struct, gc=False, omit_defaults=True):
    """Channel state of one UE (or, without ``ue_id``, the mean of a radio cell) at ``event_time_us`` (µs, UTC).

    ``cqi`` 0..15 (0 = out of range, which is a value), ``rank`` 1..8 layers, ``bler_ratio`` 0..1 of initial
    transmissions, ``mcs`` the index in use 0..31.
    """

    schema: str
    radio_cell_id: str
    event_time_us: int
    ue_id: str | None = None
    cqi: float | None = None
    sinr_db: float | None = None
    rank: float | None = None
    bler_ratio: float | None = None
    mcs: float | None = None
    suspect: bool = False


Plane: TypeAlias = list[list[float | None]]


class Grid(Struct, gc=False, omit_defaults=True):
    """One frame: a grid of radio cells over one period that begins at ``event_time_us`` (µs since the epoch, UTC).

    The grid is one series. Each KPI is a list of rows of equal length, null where a place was not measured or holds no
    radio cell; ``[r][c]`` is the place in row r and column c, and places side by side are neighbours on the ground.
    """

    schema: str
    grid_id: str
    event_time_us: int
    dl_throughput_kbps: Plane | None = None
    ul_throughput_kbps: Plane | None = None
    prb_use_dl_percent: Plane | None = None
    prb_use_ul_percent: Plane | None = None
    connected_ues: Plane | None = None
    allocated_prbs: Plane | None = None
    activity_count: Plane | None = None
    suspect: bool = False


class KpiForecast(Struct, gc=False):
    """Forecast of one KPI: ``values[lead][level]`` in the KPI's unit, null = none; lead 0 is one period ahead.

    ``source`` is the rung of the ladder that it comes from.
    """

    source: Literal["model", "seasonal", "naive", "none"]
    values: list[list[float | None]]


class Forecast(Struct, gc=False):
    """What one predictor version foresaw for one series at ``issued_at_us`` (µs, UTC), which is a slot of its grid.

    ``series`` is the key with its fields joined by |, ``key`` the same by field. The target time of lead i is
    ``issued_at_us`` + (i + 1) * ``period_us``. ``levels`` are the probabilities of the quantiles. ``quality`` names
    reservations: warming, not_finite, failed, no_model, input_missing, suspect, approximate, challenger (nobody is
    served with it), moved.
    """

    schema: str
    id: str
    stream: str
    series: str
    key: dict[str, str]
    predictor: str
    version: str
    issued_at_us: int
    period_us: int
    horizon_steps: int
    levels: list[float]
    quality: list[str]
    kpis: dict[str, KpiForecast]


class Action(Struct, gc=False):
    """What a hook decided at ``issued_at_us``: set ``attribute`` of ``object_id`` to ``value``, because of ``why``.

    In mode shadow nobody applies it; in mode auto netpredict's own actuators do, in mode assist once a person approves
    it, unless a guard says no.
    The actuator ``kafka`` gives its orders in this schema too; their ``ce_type`` tells (``ingest.cloudevents``).
    Past ``expires_at_us`` it must not be applied any more; it is meant to hold until ``effect_until_us``.
    """

    schema: str
    id: str
    hook: str
    stream: str
    object_id: str
    attribute: str
    value: dict[str, Any]
    why: dict[str, Any]
    mode: Literal["shadow", "assist", "auto"]
    issued_at_us: int
    expires_at_us: int
    effect_until_us: int


SCHEMAS: dict[str, type[Struct]] = {
    "netpredict.traffic/1": Traffic,
    "netpredict.rsrp/1": Rsrp,
    "netpredict.channel-state/1": ChannelState,
    "netpredict.grid/1": Grid,
}

FORECAST_SCHEMA = "netpredict.forecast/1"
ACTION_SCHEMA = "netpredict.action/1"
PUBLISHED: dict[str, type[Struct]] = {FORECAST_SCHEMA: Forecast, ACTION_SCHEMA: Action}
