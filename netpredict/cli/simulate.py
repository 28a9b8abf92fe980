"""``netpredict simulate``: telemetry of a network that does not exist."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import datetime
from typing import Annotated

import typer

from netpredict.cli.options import AsJson, ConfigPath, read_config
from netpredict.cli.telemetry import KAFKA, Telemetry, open_sink, send, tell, topics_of
from netpredict.cli.terminal import print_json

MOST = 1_000_000
LONGEST_S = 10 * 365 * 86_400

To = Annotated[str, typer.Option("--to", help="kafka, or a file: JSON Lines, gzipped when it ends in .gz.")]
Speed = Annotated[
    float | None,
    typer.Option(
        "--speed", min=0, help="Times real time; 0 = as fast as it goes [default: 1 to kafka, 0 to a file].",
        show_default=False,
    ),
]  # fmt: skip
Bootstrap = Annotated[
    str | None,
    typer.Option("--bootstrap", help="Brokers, host:port,... [default: kafka.bootstrap_servers].", show_default=False),
]


def simulate(
    to: To,
    seconds: Annotated[int, typer.Option("--seconds", min=1, max=LONGEST_S, help="Time to simulate, s.")] = 3600,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Same seed, same bytes.")] = 1,
    radio_cells: Annotated[int, typer.Option("--radio-cells", min=1, max=MOST, help="Number of radio cells.")] = 500,
    ues: Annotated[int, typer.Option("--ues", min=0, max=MOST, help="Number of UEs; 0 = traffic only.")] = 300,
    rsrp_period_ms: Annotated[
        int,
        typer.Option("--rsrp-period-ms", min=200, max=MOST, help="Between two reports of a UE, ms; a multiple of 20."),
    ] = 1000,
    neighbours: Annotated[int, typer.Option("--neighbours", min=0, max=8, help="Most neighbours in a report.")] = 4,
    neighbour_sinr: Annotated[
        bool,
        typer.Option("--neighbour-sinr", help="Report the SINR of neighbours too, each measured with an error."),
    ] = False,
    speeds_kmh: Annotated[
        list[float] | None,
        typer.Option(
            "--speed-kmh",
            min=0,
            max=500,
            help="Speed of all UEs, km/h; given more than once, in turn [default: a mix of 0 to 120].",
            show_default=False,
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option("--start", help="First event time: ISO 8601 or now [default: 2026-01-05].", show_default=False),
    ] = None,
    speed: Speed = None,
    bootstrap: Bootstrap = None,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Send telemetry of a simulated network.

    Traffic of radio cells; RSRP and channel state of UEs that move between them. Stamps are UTC.
    """
    from netpredict.traces.simulator import Simulator, SimulatorConfig

    settings = SimulatorConfig(
        seed=seed,
        radio_cells=radio_cells,
        ues=ues,
        rsrp_period_ms=rsrp_period_ms,
        neighbours=neighbours,
        neighbour_sinr=neighbour_sinr,
        speeds_kmh=tuple(speeds_kmh or ()),
    )
    if start is not None:
        settings = replace(settings, start_us=_start_us(start))
    telemetry = Telemetry("simulator", Simulator(settings).messages(seconds))
    read = read_config(config)
    sent = send(telemetry, open_sink(to, read, bootstrap), topics_of(read), pace(speed, to))
    if as_json:
        print_json({"sent": sent, "to": to, **telemetry.described()})
    else:
        tell(telemetry, sent, to)


def pace(speed: float | None, to: str) -> float:
    """The speed in use."""
    return (1.0 if to == KAFKA else 0.0) if speed is None else speed


def _start_us(text: str) -> int:
    """Whole minutes, so that every period of the simulator begins there; without a zone it is UTC."""
    if text == "now":
        return int(time.time()) // 60 * 60_000_000
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is neither ISO 8601 nor now", param_hint="--start") from error
    unix_s = (moment if moment.tzinfo else datetime.fromisoformat(f"{moment.isoformat()}+00:00")).timestamp()
    return int(unix_s // 60) * 60_000_000
