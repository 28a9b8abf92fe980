"""How fast a GRU is trained, beside the GRU of darts and of neuralforecast: `make bench-train`.

The same real traces (hourly activity of Milan squares), units, levels, learning rate, windows, minibatches, gradient
steps and processor threads (one), each system in a process of its own, in turn, several times over. A ratio is taken
within one round and of processor time, for the machine is noisy. See ``rivals/task.py`` for what a train_epoch is.

Sizes by environment: BENCH_SERIES, BENCH_EPOCHS, BENCH_ROUNDS, BENCH_UNITS, BENCH_THREADS.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from netpredict.evaluate.cases import known_case
from tests.benchmarks.rivals.task import Task

ROOT = Path(__file__).parents[2]
RIVALS = ROOT / "build" / "rivals" / "bin" / "python"
HERE = Path(__file__).parent / "rivals"
SYSTEMS = {"netpredict": Path(sys.executable), "darts": RIVALS, "neuralforecast": RIVALS}
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
THREADS = os.environ.get("BENCH_THREADS", "1")
TIME = "train_epoch_processor_s"


@pytest.fixture(scope="module")
def task(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    os.environ["NETPREDICT_DATA"] = str(data_folder)
    case = known_case("milan-hourly")
    values = case.values[: int(os.environ.get("BENCH_SERIES", "60")), :, 0].astype(np.float64)
    assert np.isfinite(values).all()
    features = case.training.features
    path = tmp_path_factory.mktemp("task") / "task.npz"
    Task(
        values,
        int(case.training.first_slot[0]) * features.period_us,
        features.period_us,
        case.scored_from,
        horizon_steps=24,
        lookback_steps=32,
        units=int(os.environ.get("BENCH_UNITS", "32")),
        minibatch=60,
        train_epochs=int(os.environ.get("BENCH_EPOCHS", "20")),
        seed=1,
    ).save(path)
    return path


def measured(system: str, task: Path, result: Path) -> dict:
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore", "CUDA_VISIBLE_DEVICES": ""}
    threads = {"OMP_NUM_THREADS": THREADS, "TF_NUM_INTRAOP_THREADS": THREADS, "TF_NUM_INTEROP_THREADS": "1"}
    threads |= {"MKL_NUM_THREADS": THREADS}
    script = HERE / f"{'ours' if system == 'netpredict' else system + '_gru'}.py"
    done = subprocess.run(
        [SYSTEMS[system], script, task, result],
        env={**os.environ, **quiet, **threads},
        capture_output=True,
        text=True,
        timeout=1200,
        cwd=result.parent,
    )
    assert done.returncode == 0, f"{system}\n{done.stderr[-3000:]}"
    found: dict = json.loads(result.read_text())
    return found


@pytest.mark.timeout(3600)
def test_training_is_faster_than_that_of_others(task: Path, tmp_path: Path) -> None:
    if not RIVALS.exists():
        pytest.skip("darts and neuralforecast are not here: make bench-train brings them")
    rounds = [{name: measured(name, task, tmp_path / f"{name}.json") for name in SYSTEMS} for _ in range(ROUNDS)]
    report = {name: summary(name, rounds) for name in SYSTEMS}
    print(f"\n{'':24}{'processor s/train_epoch':>24}{'times ours':>24}{'by the wall':>12}{'MAE':>9}{'weights':>9}")
    for name, row in report.items():
        ratio = f"{row['ratio']:.2f} ({row['ratio_least']:.2f} to {row['ratio_most']:.2f})"
        numbers = f"{row[TIME]:>24.3f}{ratio:>24}{row['train_epoch_s']:>12.3f}{row['mae']:>9.3f}{row['weights']:>9,}"
        print(f"{name + ' ' + row['version']:24}{numbers}")
    print(f"{'last value':24}{'':60}{rounds[0]['netpredict']['naive_mae']:>9.3f}")
    Path(ROOT / "build" / "bench-train.json").write_text(json.dumps({"systems": report, "rounds": rounds}, indent=1))
    assert all(row["ratio"] > 1 for name, row in report.items() if name != "netpredict")


def summary(name: str, rounds: list[dict]) -> dict:
    """Medians over the rounds; ``ratio`` is its time over ours in the same round."""
    ratios = [one[name][TIME] / one["netpredict"][TIME] for one in rounds]
    numbers = (TIME, "train_epoch_s", "mae")
    middle = {key: statistics.median(one[name][key] for one in rounds) for key in numbers}
    spread = {"ratio": statistics.median(ratios), "ratio_least": min(ratios), "ratio_most": max(ratios)}
    return {**middle, **spread, "version": rounds[0][name]["version"], "weights": rounds[0][name]["weights"]}
