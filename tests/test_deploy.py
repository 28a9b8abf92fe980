"""What an operator installs from deploy/: the units are hardened, parse, and TensorFlow lives with them."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from netpredict.config import load_config
from netpredict.store.database import database_of

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
UNITS = ("netpredict.service", "netpredict@.service")
REVERT_UNITS = ("netpredict-revert.service", "netpredict-revert.timer")
EXPOSURE_MAX = 2.0

needs_systemd_analyze = pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="no systemd-analyze on this machine (Debian: the package systemd)"
)

# what the daemon does, in small: the compiled step, training, the store, its sockets, a training child that is nice
WORKLOAD = """
import multiprocessing, os, socket, sqlite3, sys
def child(queue):
    os.nice(10)
    queue.put(os.nice(0))
if __name__ == "__main__":
    import keras, numpy as np, tensorflow as tf
    x, y = np.ones((16, 4, 3), np.float32), np.ones((16, 2), np.float32)
    model = keras.Sequential([keras.layers.GRU(8), keras.layers.Dense(2)])
    model.compile("adam", "mse", jit_compile=False)
    model.fit(x, y, verbose=0)
    assert tf.function(model)(x).shape == (16, 2)
    db = sqlite3.connect(sys.argv[1])
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("CREATE TABLE t (x)")
    db.commit()
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
    socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).close()
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=child, args=(queue,))
    process.start()
    assert queue.get(timeout=60) >= 10
    process.join()
    try:
        os.sched_setaffinity(0, {0})
    except PermissionError:
        print("lives under the filter")
"""


def settings(unit: str) -> dict[str, list[str]]:
    """The settings of a unit file; a key may stand more than once."""
    found: dict[str, list[str]] = {}
    for line in (DEPLOY / unit).read_text().splitlines():
        if "=" in line and not line.startswith(("#", ";")):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


@needs_systemd_analyze
@pytest.mark.parametrize("unit", [*UNITS, "netpredict-revert.service"])
def test_a_unit_is_hardened(unit: str) -> None:
    argv = ["systemd-analyze", "security", "--offline=true", str(DEPLOY / unit)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    exposure = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert exposure, done.stdout
    assert float(exposure.group(1)) <= EXPOSURE_MAX


@needs_systemd_analyze
@pytest.mark.parametrize("unit", [*UNITS, *REVERT_UNITS])
def test_systemd_understands_a_unit(unit: str) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", str(DEPLOY / unit)], capture_output=True, text=True, check=False
    )
    complaints = [line for line in done.stderr.splitlines() if "netpredict" in line]
    # the one complaint that stands: the program is not installed on this machine
    assert [line for line in complaints if "/bin/netpredict is not executable" not in line] == []


@needs_systemd_analyze
@pytest.mark.slow
def test_tensorflow_lives_under_the_units_syscall_filter(tmp_path: Path) -> None:
    script = tmp_path / "workload.py"
    script.write_text(WORKLOAD)
    unit = str(DEPLOY / "netpredict.service")
    argv = [sys.executable, "-m", "tests.services.syscall_filter", unit, sys.executable, script, tmp_path / "t.db"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == ["lives under the filter"], done.stderr[-3000:]


def test_the_template_differs_from_the_unit_in_names_only() -> None:
    plain, template = settings("netpredict.service"), settings("netpredict@.service")
    assert plain.keys() == template.keys()
    different = {key for key in plain if plain[key] != template[key]}
    assert all("%i" in value for key in different for value in template[key])
    folders = {"StateDirectory", "CacheDirectory", "RuntimeDirectory"}
    assert different == folders | {"Description", "ExecStart", "Environment", "WorkingDirectory"}


def test_the_unit_keeps_what_the_daemon_promises() -> None:
    unit = settings("netpredict.service")
    assert unit["Type"] == ["notify"], "notify-reload does not parse on systemd 252"
    assert unit["RestartPreventExitStatus"] == ["74 78 2"]
    assert unit["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert shlex.split(unit["ExecStart"][0])[0].endswith("/bin/netpredict")


def compose() -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def test_compose_is_whole() -> None:
    services, volumes = compose()["services"], compose()["volumes"]
    assert services.keys() == {"kafka", "postgres", "netpredict"}
    for name, service in services.items():
        assert ("image" in service) != ("build" in service), name
        for other, wanted in service.get("depends_on", {}).items():
            assert wanted == {"condition": "service_healthy"}
            assert "healthcheck" in services[other]
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert source.startswith("./") or source in volumes
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), "nothing is open to the network unless an operator says so"
        for value in service.get("environment", {}).values():
            assert "PASSWORD" not in str(value) or str(value).startswith("${"), "no secret in the file"
    build = services["netpredict"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).samefile(DEPLOY / "Dockerfile")


def test_compose_sets_keys_that_the_config_knows() -> None:
    config = load_config(None, compose()["services"]["netpredict"]["environment"])
    assert config.kafka.bootstrap_servers == ["kafka:9092"]
    assert config.store.url == "postgresql://netpredict@/netpredict?host=/var/run/postgresql"
    mounted = {volume.split(":")[1] for volume in compose()["services"]["netpredict"]["volumes"]}
    assert "/var/run/postgresql" in mounted & {v.split(":")[1] for v in compose()["services"]["postgres"]["volumes"]}
    database_of(config.store_url)


def test_the_image_is_whole_and_runs_without_rights() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    words = [line.split() for line in lines if line and not line.startswith("#")]
    copied = [source for line in words if line[0] == "COPY" and "--from=build" not in line for source in line[1:-1]]
    assert [source for source in copied if not (ROOT / source).exists()] == []
    sent = {
        line.removeprefix("!")
        for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
        if line[0] == "!"
    }
    assert set(copied) == sent
    (user,) = [line[1] for line in words if line[0] == "USER"]
    assert user not in {"0", "root"}
    port = load_config(None, {}).http.port
    assert ["EXPOSE", str(port)] in words
