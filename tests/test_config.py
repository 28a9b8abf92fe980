"""Every wrong config is refused at once, and the text names the key."""

import copy

import msgspec
import pytest

from netpredict.build import build_streams
from netpredict.config import Config, load_config, parse_config
from netpredict.errors import ConfigError

GOOD = {
    "streams": {
        "traffic": {
            "topic": "ran.traffic",
            "schema": "traffic",
            "series_by": ["radio_cell_id"],
            "period_s": 60.0,
            "kpis": ["prb_use_dl_percent"],
            "features": ["connected_ues"],
            "routes": [{"active": "naive"}],
        }
    },
    "predictors": {"naive": {"plugin": "naive"}},
    "hooks": {"bandwidth": {"plugin": "bandwidth", "stream": "traffic"}},
    "actuators": {"log": {"plugin": "log"}},
}
TRAFFIC = "streams.traffic"


def changed(path, value):
    raw = copy.deepcopy(GOOD)
    *tables, key = path.split(".")
    table = raw
    for name in tables:
        table = table.setdefault(name, {})
    table[key] = value
    return raw


def test_the_good_one_is_good():
    assert parse_config(GOOD).streams["traffic"].horizon_steps == 12
    assert len(build_streams(parse_config(GOOD))) == 1
    assert parse_config({}) == Config()


WRONG = [
    ("daemon.comit_interval_s", 1.0, "comit_interval_s"),
    (f"{TRAFFIC}.horizon", 3, r"^streams\.traffic: .*unknown field `horizon`"),
    (f"{TRAFFIC}.period_s", 0, r"^streams\.traffic\.period_s: .*> 0"),
    (f"{TRAFFIC}.period_s", "60", "Expected `float`"),
    (f"{TRAFFIC}.period_s", float("inf"), r"streams\.traffic\.period_s: must be a finite number"),
    (f"{TRAFFIC}.max_future_s", float("nan"), "max_future_s|finite"),
    (f"{TRAFFIC}.period_s", 1e-7, "below one microsecond"),
    (f"{TRAFFIC}.phase_s", 60.0, "phase_s: must be below period_s"),
    (f"{TRAFFIC}.bucket_s", 0.0, "> 0"),
    (f"{TRAFFIC}.kpis", [], "length >= 1"),
    (f"{TRAFFIC}.features", ["prb_use_dl_percent"], "stands twice"),
    (f"{TRAFFIC}.quantile_levels", [0.5, 0.1], "must rise"),
    (f"{TRAFFIC}.quantile_levels", [0.5, 0.5], "must rise"),
    (f"{TRAFFIC}.quantile_levels", [0.0, 0.5], "between 0 and 1"),
    (f"{TRAFFIC}.quantile_levels", [0.1, 0.9], "must contain 0.5"),
    (f"{TRAFFIC}.season_s", 86_400.0, "season_s and season_buckets"),
    (f"{TRAFFIC}.season_buckets", 200, "<= 168"),
    (f"{TRAFFIC}.time_zone", "Mars/Olympus", "streams.traffic.time_zone: no time zone named 'Mars/Olympus'"),
    (f"{TRAFFIC}.holidays", ["25.12.2013"], "streams.traffic.holidays: holidays are ISO dates"),
    (f"{TRAFFIC}.series_ttl_s", 60.0, "series_ttl_s: must span"),
    (f"{TRAFFIC}.routes", [], "length >= 1"),
    (f"{TRAFFIC}.routes", [{"active": "gru"}], "no predictor named 'gru'"),
    (f"{TRAFFIC}.routes", [{"active": "naive", "shadows": ["gru"]}], "no predictor named 'gru'"),
    (f"{TRAFFIC}.routes", [{"active": "naive", "shadows": ["naive"]}], "stands twice"),
    (f"{TRAFFIC}.routes", [{"active": 3}], r"^streams\.traffic\.routes\[0\]\.active: "),
    (f"{TRAFFIC}.kpis", ["activity_count[0,0]"], "streams.traffic: .* names no place; .* key grid"),
    (f"{TRAFFIC}.grid", {"rows": 65, "columns": 64}, r"streams\.traffic\.grid: 65 x 64 are 4160 places, at most 4096"),
    (f"{TRAFFIC}.grid", {"rows": 0, "columns": 3}, ">= 1"),
    (f"{TRAFFIC}.grid", {"rows": 2}, "missing required field `columns`"),
    ("streams.Traffic Jam", GOOD["streams"]["traffic"], "^streams: the name 'Traffic Jam'"),
    ("predictors.naive.plugin", 3, r"^predictors\.naive\.plugin: "),
    ("predictors.naive.optoins", {}, r"^predictors\.naive: .*`optoins`"),
    ("steams.traffic", {}, "^config: .*unknown field `steams`"),
    ("streams.twin", GOOD["streams"]["traffic"], "same topic"),
    ("hooks.bandwidth.stream", "nowhere", r"hooks\.bandwidth\.stream: no stream named 'nowhere'"),
    ("hooks.bandwidth.actuators", ["pager"], r"hooks\.bandwidth\.actuators: no actuator named 'pager'"),
    ("hooks.bandwidth.mode", "on", "shadow|mode"),
    ("store.retention_days", 0.001, "retention_days: must span"),
    ("kafka.bootstrap_servers", "host:9092", "Expected `array`"),
    ("kafka.bootstrap_servers", ["a:1", "host"], r"kafka\.bootstrap_servers: must be host:port.*got 'host'"),
    ("kafka.bootstrap_servers", [":9092"], "must be host:port"),
    ("kafka.bootstrap_servers", ["host:0"], "port of 1 to 65535"),
    ("kafka.bootstrap_servers", ["host:99999"], "port of 1 to 65535"),
]


@pytest.mark.parametrize(("path", "value", "message"), WRONG)
def test_a_wrong_value_is_refused_by_name(path, value, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(changed(path, value))


def test_a_forecast_of_a_grid_has_a_bounded_size():
    raw = changed(f"{TRAFFIC}.grid", {"rows": 64, "columns": 64})
    raw["hooks"] = {}
    raw["streams"]["traffic"] |= {"kpis": ["activity_count"], "features": [], "horizon_steps": 22}
    with pytest.raises(
        ConfigError, match=r"4096 places, 1 kpis, 22 horizon_steps .* has 270336 values, at most 262144"
    ):
        parse_config(raw)
    raw["streams"]["traffic"]["horizon_steps"] = 21
    columns = parse_config(raw).streams["traffic"].kpi_columns()
    assert (len(columns), columns[0], columns[-1]) == (4096, "activity_count[0,0]", "activity_count[63,63]")


def test_a_hook_that_needs_another_column_than_a_grid_has_is_told_how_they_are_named():
    raw = changed(f"{TRAFFIC}.grid", {"rows": 2, "columns": 2})
    raw["streams"]["traffic"] |= {"schema": "grid", "series_by": ["grid_id"]}
    message = r"hooks\.bandwidth needs forecasts of prb_use_dl_percent; .* named like prb_use_dl_percent\[0,0\]"
    with pytest.raises(ConfigError, match=message):
        build_streams(parse_config(raw))


UNFIT = [
    (f"{TRAFFIC}.kpis", ["prb_use"], "hooks.bandwidth needs forecasts of prb_use_dl_percent"),
    (f"{TRAFFIC}.series_by", ["ue_id"], "series_by"),
    (f"{TRAFFIC}.decoder", "xml", "0 plugins named 'xml' in netpredict.decoders; installed: .*json"),
    ("hooks.bandwidth.plugin", "bandwith", "0 plugins named 'bandwith'"),
    ("hooks.bandwidth.options", {"lead_stepz": 3}, r"hooks\.bandwidth\.options: .*lead_stepz"),
    ("hooks.bandwidth.options", {"lead_steps": 13}, r"looks 13 steps ahead; streams\.traffic\.horizon_steps is 12"),
    (
        "hooks.bandwidth.options",
        {"demand_kpi": "dl_throughput_kbps"},
        r"dl_throughput_kbps; add .*streams\.traffic\.kpis",
    ),
]


@pytest.mark.parametrize(("path", "value", "message"), UNFIT)
def test_what_only_the_plugins_know_is_refused_when_they_are_bound(path, value, message):
    with pytest.raises(ConfigError, match=message):
        build_streams(parse_config(changed(path, value)))


def test_a_hook_that_reads_a_column_says_where_to_add_it():
    raw = changed(f"{TRAFFIC}.schema", "rsrp")
    raw["streams"]["traffic"] |= {"series_by": ["ue_id", "radio_cell_id"], "kpis": ["rsrp_dbm"], "features": []}
    raw["hooks"] = {"handover": {"plugin": "handover", "stream": "traffic"}}
    with pytest.raises(ConfigError, match=r"hooks\.handover reads serving; add .* streams\.traffic\.features"):
        build_streams(parse_config(raw))
    raw["streams"]["traffic"]["features"] = ["serving"]
    assert build_streams(parse_config(raw))[0].columns == ("rsrp_dbm", "serving")


def test_levels_of_hooks_join_those_of_the_stream_without_near_twins():
    raw = changed("hooks.bandwidth.options", {"c_under": 0.9, "c_over": 0.1})
    stream = build_streams(parse_config(raw))[0]
    assert stream.levels == (0.1, 0.5, 0.9)
    raw["hooks"]["bandwidth"]["options"] = {"c_under": 4.0}
    assert build_streams(parse_config(raw))[0].levels == (0.1, 0.5, 0.8, 0.9)


def test_a_hooks_mode_is_part_of_what_the_journal_tells():
    shadow, auto = (build_streams(parse_config(changed("hooks.bandwidth.mode", m)))[0] for m in ("shadow", "auto"))
    assert shadow.fingerprint != auto.fingerprint
    assert shadow.fingerprint == build_streams(parse_config(GOOD))[0].fingerprint


def test_the_environment_overrides_the_file(tmp_path):
    path = tmp_path / "netpredict.toml"
    path.write_text('[kafka]\ngroup = "file"\n[daemon]\nseed = 3\n')
    names = {
        "NETPREDICT__KAFKA__GROUP": "blue",
        "NETPREDICT__KAFKA__BOOTSTRAP_SERVERS": '["a:1","b:2"]',
        "NETPREDICT__DAEMON__COMMIT_INTERVAL_S": "2.5",
        "NETPREDICT__HTTP__ENABLED": "false",
        "NETPREDICT_DATA": "/elsewhere",
        "PATH": "/bin",
    }
    config = load_config(path, names)
    assert (config.kafka.group, config.kafka.bootstrap_servers, config.daemon.seed) == ("blue", ["a:1", "b:2"], 3)
    assert (config.daemon.commit_interval_s, config.http.enabled) == (2.5, False)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("NETPREDICT__KAFKA__GRUP", "x", r"^kafka: .*grup.*set by NETPREDICT__KAFKA__GRUP"),
        ("NETPREDICT__DAEMON__SEED", "many", r"^daemon\.seed: Expected `int`.*set by NETPREDICT__DAEMON__SEED"),
        ("NETPREDICT__DEAMON__SEED", "1", "set by NETPREDICT__DEAMON__SEED"),
        ("NETPREDICT__KAFKA__BOOTSTRAP_SERVERS", '["host"]', "set by NETPREDICT__KAFKA__BOOTSTRAP_SERVERS"),
        ("NETPREDICT__HOOKS__BANDWIDTH", '{"plugin": "b", "stream": "s"}', "no stream.*set by NETPREDICT__HOOKS__BAN"),
        ("NETPREDICT__KAFKA__GROUP__NAME", "x", "NETPREDICT__KAFKA__GROUP__NAME: group is not a table"),
    ],
)
def test_a_wrong_override_is_refused(tmp_path, name, value, message):
    path = tmp_path / "netpredict.toml"
    path.write_text('[kafka]\ngroup = "file"\n')
    with pytest.raises(ConfigError, match=message):
        load_config(path, {name: value})


def test_a_variable_that_is_right_is_not_blamed(tmp_path):
    path = tmp_path / "netpredict.toml"
    path.write_text("[daemon]\nseed = -1\n")
    with pytest.raises(ConfigError, match=r"^daemon\.seed: ") as caught:
        load_config(path, {"NETPREDICT__DAEMON__DRAIN_S": "5", "NETPREDICT__KAFKA__GROUP": "blue"})
    assert "NETPREDICT__" not in str(caught.value)


def test_a_config_without_a_stream_cannot_run():
    with pytest.raises(ConfigError, match=r"^streams: none is configured.*sample-config"):
        build_streams(parse_config({}))


def test_a_file_that_is_absent_or_no_toml_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read .*none\.toml"):
        load_config(tmp_path / "none.toml", {})
    path = tmp_path / "bad.toml"
    path.write_bytes(b"\xff[")
    with pytest.raises(ConfigError, match=r"bad\.toml is not TOML"):
        load_config(path, {})


def test_the_config_has_a_json_schema():
    schema = msgspec.json.schema(Config)
    assert schema["$defs"]["StreamConfig"]["additionalProperties"] is False
