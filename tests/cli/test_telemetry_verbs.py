"""Telemetry out of the simulator, the real traces and an operator's own table; into a file and into Kafka."""

import gzip
from pathlib import Path

import msgspec
import pytest

from tests.cli.conftest import CONFIG, Cli, document, record


def lines(path: Path) -> list[dict[str, object]]:
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [msgspec.json.decode(line) for line in raw.splitlines()]


def test_the_same_seed_gives_the_same_file(cli: Cli, tmp_path: Path) -> None:
    one, two, other = (tmp_path / name for name in ("one.jsonl.gz", "two.jsonl.gz", "other.jsonl.gz"))
    words = ("simulate", "--seconds", 61, "--radio-cells", 3, "--ues", 2, "--to")
    sent = document(cli(*words, one, "--json"))
    assert sent["sent"] == len(lines(one)) == 250
    assert (sent["to"], sent["time_zone"]) == (str(one), "UTC")
    assert cli(*words, two).exit_code == cli(*words, other, "--seed", 2).exit_code == 0
    assert one.read_bytes() == two.read_bytes() != other.read_bytes()
    assert {line["topic"] for line in lines(one)} == {"ran.traffic", "ran.rsrp", "ran.channel-state"}


def test_the_simulation_begins_when_asked(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    words = ("simulate", "--seconds", 60, "--radio-cells", 1, "--ues", 0, "--to", path, "--start")
    assert cli(*words, "2026-03-01T12:00").exit_code == 0
    assert lines(path)[0]["value"]["event_time_us"] == 1_772_366_400_000_000
    assert cli(*words, "2026-03-01T13:00+01:00").exit_code == 0
    assert lines(path)[0]["value"]["event_time_us"] == 1_772_366_400_000_000
    assert cli(*words, "now").exit_code == 0
    assert cli(*words, "yesterday").exit_code == 2


def test_reports_are_as_asked_for(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    words = ("simulate", "--seconds", 30, "--radio-cells", 30, "--ues", 4, "--to", path)
    often = ("--rsrp-period-ms", 200, "--neighbours", 8, "--neighbour-sinr", "--speed-kmh", 0, "--speed-kmh", 120)
    assert cli(*words, *often).exit_code == 0
    reports = [line["value"] for line in lines(path) if line["topic"] == "ran.rsrp"]
    assert len(reports) == 4 * 30 * 5
    assert {len(report["neighbours"]) for report in reports} == {8}
    assert all("sinr_db" in each for report in reports for each in (report, *report["neighbours"]))

    def spread_db(ue: str) -> float:
        """Of the strongest level over half a minute: 1 dB of error, or a kilometre's way."""
        best = [max(each["rsrp_dbm"] for each in (r, *r["neighbours"])) for r in reports if r["ue_id"] == ue]
        return max(best) - min(best)

    assert spread_db("sim-ue-00000") < 4 < spread_db("sim-ue-00001")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--rsrp-period-ms", 100), 2),
        (("--rsrp-period-ms", 210), 78),
        (("--neighbours", 9), 2),
        (("--speed-kmh", 501), 2),
        (("--speed-kmh", "nan"), 2),
    ],
)
def test_reports_that_cannot_be_simulated_are_refused(
    cli: Cli, tmp_path: Path, words: tuple[object, ...], code: int
) -> None:
    result = cli("simulate", "--to", tmp_path / "a.jsonl", "--seconds", 1, *words)
    assert result.exit_code == code
    assert result.stderr
    assert not (tmp_path / "a.jsonl").exists()


def test_topics_are_those_of_the_config(cli: Cli, config: Path, tmp_path: Path) -> None:
    other = tmp_path / "netpredict.toml"
    other.write_text(config.read_text().replace("ran.traffic", "my.load"))
    path = tmp_path / "a.jsonl"
    assert cli("simulate", "--seconds", 60, "--ues", 0, "--radio-cells", 1, "--to", path, "-c", other).exit_code == 0
    assert {line["topic"] for line in lines(path)} == {"my.load"}


def test_a_recorded_file_can_be_replayed(cli: Cli, tmp_path: Path) -> None:
    path = record(tmp_path / "a.jsonl", 60)
    assert document(cli("replay", path, "--to", tmp_path / "b.jsonl", "--json"))["sent"] == 243
    assert (tmp_path / "b.jsonl").read_bytes() == path.read_bytes()


def test_a_table_is_replayed_by_its_mapping(cli: Cli, tmp_path: Path) -> None:
    table, mapping, out = tmp_path / "load.csv", tmp_path / "mapping.toml", tmp_path / "out.jsonl"
    table.write_text("when,cell,mbps\n2024-03-01 00:00:00,c1,1.5\nrubbish,c1,2\n2024-03-01 00:01:00,c1,-\n")
    mapping.write_text(
        'stream = "traffic"\ntime_column = "when"\nradio_cell_column = "cell"\ntime_zone = "Europe/Rome"\n'
        'time_format = "%Y-%m-%d %H:%M:%S"\nkpis.dl_throughput_kbps = { column = "mbps", unit = "Mbps" }\n'
    )
    told = document(cli("replay", table, "--mapping", mapping, "--to", out, "--json"))
    assert (told["sent"], told["time_zone"], told["repairs"]) == (1, "Europe/Rome", {"unreadable_stamp": 1})
    (line,) = lines(out)
    assert line["value"]["dl_throughput_kbps"] == 1500.0
    assert line["value"]["event_time_us"] == 1_709_247_600_000_000
    unmapped = cli("replay", table, "--to", out)
    assert unmapped.exit_code == 1
    assert "has the columns when, cell, mbps: say which is what" in unmapped.stderr
    assert cli("replay", "--to", out).exit_code == cli("replay", "ucc5g", "--table", table, "--to", out).exit_code == 2
    mapping.write_text('stream = "traffic"\n')
    assert cli("replay", table, "--mapping", mapping, "--to", out).exit_code == 1
    assert cli("replay", table, "--mapping", tmp_path / "none.toml", "--to", out).exit_code == 1


def test_options_map_a_table_as_a_file_does(cli: Cli, tmp_path: Path) -> None:
    table, one, two = tmp_path / "load.csv", tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    table.write_text("when;cell;load\n1709247600;c1;37\n1709247660;c1;n/a\n1709247720;c1;-1\n")
    mapping = tmp_path / "mapping.toml"
    mapping.write_text(
        'stream = "traffic"\ntime_column = "when"\nradio_cell_column = "cell"\ntime_format = "unix_s"\n'
        'delimiter = ";"\nmissing = ["n/a"]\nsentinels = { load = [-1] }\n'
        'kpis.prb_use_dl_percent = { column = "load", unit = "percent" }\n'
    )
    pairs = [
        "time_column=when",
        "radio_cell_column=cell",
        "time_format=unix_s",
        "delimiter=;",
        "missing=n/a",
        "sentinels.load=-1",
        "kpis.prb_use_dl_percent=load:percent",
    ]
    words = [word for pair in pairs for word in ("--map", pair)]
    by_file = document(cli("replay", "--table", table, "--mapping", mapping, "--to", one, "--json"))
    by_options = document(cli("replay", "--table", table, *words, "--to", two, "--json"))
    assert by_file | {"to": ""} == by_options | {"to": ""}
    assert one.read_bytes() == two.read_bytes()
    assert by_file["repairs"] == {"sentinel:load": 1}
    assert len(lines(one)) == 1


def test_what_cannot_be_replayed_is_told(cli: Cli, tmp_path: Path) -> None:
    result = cli("replay", "no-such-set", "--to", tmp_path / "a.jsonl")
    assert result.exit_code == 1
    assert "ucc5g" in result.stderr
    assert cli("replay", tmp_path / "none.jsonl", "--to", tmp_path / "a.jsonl").exit_code == 1
    assert cli("replay", record(tmp_path / "b.jsonl", 60), "--to", tmp_path / "no" / "a.jsonl").exit_code == 1


@pytest.mark.parametrize(
    ("dataset", "zone", "weeks"),
    [
        ("ucc5g", "Europe/Dublin", 0),
        ("wmnlab", "Asia/Taipei", 0),
        ("tractor", "UTC", 0),
        ("nist-prosas", "UTC", 0),
        ("milan", "Europe/Rome", 620),
        ("ns3-uma", "UTC", 0),
    ],
)
def test_a_real_data_set_tells_its_time_zone(
    cli: Cli, tmp_path: Path, data_folder: Path, monkeypatch: pytest.MonkeyPatch, dataset: str, zone: str, weeks: int
) -> None:
    monkeypatch.setenv("NETPREDICT_DATA", str(data_folder))
    told = document(cli("replay", dataset, "--limit-traces", 1, "--to", tmp_path / "a.jsonl.gz", "--json"))
    assert (told["time_zone"], told["shifted_weeks"], told["traces"]) == (zone, weeks, 1)
    assert told["sent"] > 0


def test_telemetry_reaches_kafka(cli: Cli, tmp_path: Path, broker) -> None:
    topic = broker.new_topic("cli")
    text = CONFIG.format(folder=tmp_path).replace("ran.traffic", topic)
    (tmp_path / "netpredict.toml").write_text(text)
    words = ("simulate", "--seconds", 600, "--radio-cells", 3, "--ues", 0, "--speed", 0, "--to", "kafka", "--json")
    told = document(cli(*words, "--bootstrap", broker.bootstrap, "-c", tmp_path / "netpredict.toml"))
    assert told["sent"] == 30
    from kafka import KafkaConsumer, TopicPartition

    consumer = KafkaConsumer(bootstrap_servers=broker.bootstrap)
    place = TopicPartition(topic, 0)
    assert consumer.end_offsets([place])[place] == 30
    consumer.close()


def test_a_broker_that_is_not_there_is_exit_code_75(cli: Cli) -> None:
    words = ("simulate", "--seconds", 60, "--radio-cells", 1, "--ues", 0, "--to", "kafka")
    result = cli(*words, "--bootstrap", "127.0.0.1:9")
    assert result.exit_code == 75
    assert "Traceback" not in result.stderr
