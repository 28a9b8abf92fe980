"""What links cost, from end to end: the example of the hook's README, trained, live over a real broker, acted on."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from netpredict.store.history import History
from tests.handovers_by_cost import fired_and_wanted
from tests.integration.daemon_process import DaemonProcess, Receiver, cli, toml
from tests.services.kafka_broker import KafkaBroker

pytestmark = pytest.mark.slow
README = Path(__file__).parents[2] / "plugins" / "hooks" / "handover" / "README.md"
PRICE = 0.05
NETWORK = ("--radio-cells", "21", "--ues", "12")
DENSE = ("--rsrp-period-ms", "200", "--neighbours", "8", "--neighbour-sinr", "--seed", "5", "--speed-kmh", "120")
FOREVER_S = 1e9  # simulated time lies back


def config_of(broker: KafkaBroker, topic: str, folder: Path, url: str) -> dict[str, Any]:
    """The example as it stands; a smaller network, an own broker and store, and a hook that acts."""
    (text,) = README.read_text().split("```toml\n")[1:]
    made = tomllib.loads(text.split("```")[0])
    made["streams"]["links"] |= {"topic": topic}
    made["streams"]["links"]["hindsight"] = {"rounds": 2}
    made["predictors"]["links"]["options"] |= {"units": 16, "head_units": 16, "train_epochs": 3, "learning_rate": 0.01}
    hook = made["hooks"]["handover"]
    hook |= {"mode": "auto", "actuators": ["webhook"], "effect_s": FOREVER_S}
    hook["options"] |= {
        "handover_cost": PRICE,
        "back_cost": 0.0,
        "valid_for_s": FOREVER_S,
    }
    hook["breaker"] = {"buckets": 0}  # so short a training promises nothing
    return made | {
        "daemon": {"data_dir": str(folder / "data"), "commit_interval_s": 0.2},
        "kafka": {"bootstrap_servers": [broker.bootstrap], "poll_timeout_s": 0.2},
        "store": {"url": f"sqlite:///{folder}/store.db", "retention_days": 36500.0},
        "http": {"port": 0},
        "actuators": {"webhook": {"plugin": "webhook", "options": {"url": url}}},
    }


@pytest.mark.timeout(600)
def test_handovers_are_those_that_the_forecast_costs_say(broker: KafkaBroker, tmp_path: Path) -> None:
    topic = broker.new_topic("ran.links", 3)
    with Receiver() as receiver:
        config, made = tmp_path / "netpredict.toml", config_of(broker, topic, tmp_path, receiver.url)
        (route,) = made["streams"]["links"].pop("routes")
        config.write_text(toml(made) + f'[[streams.links.routes]]\nactive = "{route["active"]}"\n')
        words, url = ("--config", str(config)), made["store"]["url"]
        told = json.loads(
            cli("train", "links", "links", "--simulate", "120", *NETWORK, "--promote", *words, "--json", timeout_s=400)
        )
        assert told["scores"]["skill.command_failure_ratio"] > 0
        assert {"mse.stay_cost", "mae.rsrp_dbm"} <= set(told["scores"])
        sent = tmp_path / "reports.jsonl"
        cli("simulate", "--to", str(sent), "--seconds", "60", *NETWORK, *DENSE)
        sent.write_text("".join(line for line in sent.open() if "netpredict.rsrp/1" in line))
        cli("replay", str(sent), "--to", "kafka", "--speed", "0", *words)
        reports = 12 * 60 * 5
        with DaemonProcess(config) as daemon:
            daemon.wait_until(lambda: read(url) == reports, 180)
            daemon.wait_until(lambda: receiver.actions and not History(url).firings(pending=True), 60)
            assert daemon.terminate() == 0, daemon.tail()
        fired, wanted = fired_and_wanted(url, "links", PRICE)
        assert fired == wanted
        assert len(fired) > 20
        # all came at once: of each UE the last one was still worth doing
        applied = {(body["object_id"], body["value"]["target"]) for body in receiver.actions.values()}
        assert applied == {(f"UE={each.ue}", each.target) for each in {each.ue: each for each in fired}.values()}
        assert {row["kpi"] for row in History(url).scores()} == {"rsrp_dbm"}
        told = json.loads(cli("why", History(url).firings(limit=1)[0]["firing_id"], *words, "--json"))
        assert {"gain", "stay_cost", "late_ratio", "arrival_cost", "price"} <= set(told["why"])


def read(url: str) -> int:
    try:
        return sum(row["next_offset"] or 0 for row in History(url).progress())
    except Exception:  # the daemon has not made the store yet
        return 0
