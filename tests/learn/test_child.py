import os
import sys
import time

import pytest

from netpredict.errors import ConfigError, DataError, PluginError
from netpredict.learn import child
from netpredict.learn.child import (
    ARTEFACT,
    DATASET,
    JOB,
    LOG,
    TrainingFailed,
    TrainingTimeout,
    TrainingTooLarge,
    run_child,
    write_job,
)
from netpredict.learn.registry import load_artefact
from netpredict.learn.train import train
from tests.learn.noisy import OPTIONS, noisy_sines
from tests.learn.test_hindsight import history as links
from tests.learn.test_hindsight import level_dbm


@pytest.fixture
def job(tmp_path):
    return write_job(tmp_path / "job", noisy_sines(), "gru", OPTIONS, now_us=1)


def impostor(monkeypatch, tmp_path, code):
    """Let the child be this script, called as the real one is; its first argument is the job folder."""
    script = tmp_path / "impostor"
    script.write_text(f"#!{sys.executable}\nimport os, signal, sys, time\nfolder = sys.argv[3]\n{code}\n")
    script.chmod(0o755)
    monkeypatch.setattr(child.sys, "executable", str(script))


def gone(pid):
    """Dead, or a zombie that nobody has reaped."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_child_trains_and_gives_the_same_version_as_this_process(job, tmp_path):
    steps = []
    result = run_child(job, timeout_s=120, on_progress=steps.append)
    assert [(step.done, step.total) for step in steps] == [(1, 2), (2, 2)]
    assert load_artefact(job / ARTEFACT).version == result.version
    assert result.train_epochs == 2
    assert result.scores["skill"] > 0
    here, _ = train(noisy_sines(), "gru", OPTIONS, tmp_path / "here", now_us=99)
    assert here.version == result.version
    assert (job / LOG).read_bytes() == b""
    assert result.held_out["skill"] > 0
    assert (result.incumbent_held_out, result.incumbent_error) == ({}, "")


def test_a_version_is_compared_with_itself_and_comes_out_equal(tmp_path):
    """On the same slice by the same code; what cannot be loaded is told, and costs no training."""
    here, _ = train(noisy_sines(), "gru", OPTIONS, tmp_path / "here", now_us=99)
    compared = []
    for name, version in (("a", here.version), ("b", "000000000000")):
        incumbent = (str(here.folder), version)
        folder = write_job(tmp_path / name, noisy_sines(), "gru", OPTIONS, now_us=1, incumbent=incumbent)
        compared.append(child.work(folder))
    assert compared[0].held_out == compared[0].incumbent_held_out
    assert compared[0].held_out["skill"] > 0
    assert compared[1].incumbent_held_out == {}
    assert "not 000000000000" in compared[1].incumbent_error


@pytest.mark.slow
def test_costs_of_links_are_taught_and_judged_in_hindsight_by_the_child_too(tmp_path):
    dataset = links(level_dbm(ues=8))
    options = OPTIONS | {"loss": "mse", "bptt_steps": 20}
    folder = write_job(tmp_path / "a", dataset, "gru", options, now_us=1)
    result = run_child(folder, timeout_s=300)
    here, report = train(dataset, "gru", options, tmp_path / "here", now_us=1)
    assert result.version == here.version
    assert result.held_out == {name: score for name, score in report.scores.items() if "mase_scale" not in name}
    assert {"mse.stay_cost", "pinball.rsrp_dbm"} <= set(result.held_out)
    again = write_job(tmp_path / "b", dataset, "gru", options, now_us=1, incumbent=(str(here.folder), here.version))
    assert child.work(again).incumbent_held_out == result.held_out


def test_a_training_that_takes_too_much_memory_is_ended_and_told(job, tmp_path, monkeypatch):
    impostor(
        monkeypatch, tmp_path, "room = bytearray(300 << 20)\nroom[::4096] = b'x' * len(room[::4096])\ntime.sleep(600)"
    )
    started_s = time.monotonic()
    with pytest.raises(TrainingTooLarge, match=r"MiB of memory, learn\.memory_max_bytes allows 256 MiB; lower"):
        run_child(job, timeout_s=60, memory_max_bytes=256 << 20)
    assert time.monotonic() - started_s < 30


def test_a_training_within_its_memory_is_left_alone(job, tmp_path, monkeypatch):
    impostor(monkeypatch, tmp_path, "time.sleep(0.6)")
    with pytest.raises(TrainingFailed):
        run_child(job, timeout_s=60, memory_max_bytes=256 << 20)


def test_the_childs_own_error_is_raised_here(tmp_path):
    with pytest.raises(PluginError, match="nobody"):
        run_child(write_job(tmp_path / "a", noisy_sines(), "nobody", {}, now_us=1), timeout_s=60)
    with pytest.raises(PluginError, match="nothing to train"):
        run_child(write_job(tmp_path / "b", noisy_sines(), "naive", {}, now_us=1), timeout_s=60)


def test_a_damaged_job_is_a_data_error(job):
    (job / DATASET).write_bytes(b"junk")
    with pytest.raises(DataError, match=r"dataset\.npz"):
        run_child(job, timeout_s=60)
    (job / JOB).write_bytes(b"{}")
    with pytest.raises(DataError, match=r"job\.json"):
        run_child(job, timeout_s=60)


def test_a_training_that_takes_too_long_is_killed_with_its_whole_group(job, tmp_path, monkeypatch):
    code = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\npid = os.fork()\n"
    code += "if pid: open(folder + '/pids', 'w').write(f'{os.getpid()} {pid}')\ntime.sleep(600)"
    impostor(monkeypatch, tmp_path, code)
    monkeypatch.setattr(child, "_TERMINATE_S", 0.2)
    started_s = time.monotonic()
    with pytest.raises(TrainingTimeout) as caught:
        run_child(job, timeout_s=1.0)
    assert caught.value.retriable
    assert time.monotonic() - started_s < 5
    pids = [int(pid) for pid in (job / "pids").read_text().split()]
    deadline_s = time.monotonic() + 5
    while not all(gone(pid) for pid in pids) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert all(gone(pid) for pid in pids)


def test_a_child_that_dies_leaves_its_last_words_in_the_error(job, tmp_path, monkeypatch):
    impostor(monkeypatch, tmp_path, "os.write(2, b'out of luck')\nos.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(TrainingFailed, match=r"code -9 .*out of luck"):
        run_child(job, timeout_s=10)


def test_a_result_of_an_earlier_run_is_not_taken_for_this_one(job, tmp_path, monkeypatch):
    (job / child.RESULT).write_text('{"version": "old"}')
    impostor(monkeypatch, tmp_path, "pass")
    with pytest.raises(TrainingFailed):
        run_child(job, timeout_s=10)


def test_noise_on_stdout_is_not_progress_and_an_unknown_error_is_a_failure(job, tmp_path, monkeypatch):
    code = "os.write(1, b'hello\\n{\"done\": 1}\\n' + b'x' * 200_000)\n"
    code += 'open(folder + \'/result.json\', \'w\').write(\'{"error": "MemoryError", "detail": "no room"}\')'
    impostor(monkeypatch, tmp_path, code)
    steps = []
    with pytest.raises(TrainingFailed, match="MemoryError: no room"):
        run_child(job, timeout_s=10, on_progress=steps.append)
    assert steps == []


def test_progress_can_cancel_and_secrets_are_not_passed_on(job, tmp_path, monkeypatch):
    monkeypatch.setenv("NETPREDICT_DB_PASSWORD", "secret")
    code = "open(folder + '/seen', 'w').write(str(dict(os.environ)))\n"
    code += 'print(\'{"done":1,"total":2,"loss":0.5,"validation_loss":null,"left_s":1}\', flush=True)\ntime.sleep(600)'
    impostor(monkeypatch, tmp_path, code)

    def cancel(step):
        assert step.validation_loss is None
        raise ConfigError("cancelled")

    with pytest.raises(ConfigError, match="cancelled"):
        run_child(job, timeout_s=10, on_progress=cancel)
    assert "secret" not in (job / "seen").read_text()
    assert os.environ["NETPREDICT_DB_PASSWORD"] == "secret"


def test_a_silent_training_can_be_cancelled(job, tmp_path, monkeypatch):
    impostor(monkeypatch, tmp_path, "time.sleep(600)")
    asked = []

    def cancel():
        asked.append(time.monotonic())
        if len(asked) > 2:
            raise ConfigError("cancelled")

    started_s = time.monotonic()
    with pytest.raises(ConfigError, match="cancelled"):
        run_child(job, timeout_s=60, on_wait=cancel)
    assert time.monotonic() - started_s < 10
