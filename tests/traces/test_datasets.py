from itertools import islice
from pathlib import Path

import pytest

from netpredict.errors import DataError
from netpredict.traces.datasets import DATASETS, data_folder


def test_the_environment_names_the_data_folder(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("NETPREDICT_DATA", str(tmp_path))

    assert data_folder() == tmp_path


def test_the_default_lies_beside_the_working_folder(monkeypatch, tmp_path: Path):
    monkeypatch.delenv("NETPREDICT_DATA", raising=False)
    (tmp_path / "repository").mkdir()
    (tmp_path / "shared" / "data").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "repository")

    assert data_folder().resolve() == tmp_path / "shared" / "data"


def test_an_absent_folder_is_a_data_error_that_says_what_to_set(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("NETPREDICT_DATA", str(tmp_path / "nowhere"))

    with pytest.raises(DataError, match=r"nowhere: set NETPREDICT_DATA"):
        data_folder()


def test_the_catalogue_is_keyed_by_name():
    assert {name: dataset.period_s for name, dataset in DATASETS.items()} == {
        "ucc5g": 1.0,
        "wmnlab": 1.0,
        "tractor": 0.25,
        "nist-prosas": 60.0,
        "milan": 3600.0,
        "ns3-uma": 0.2,
    }
    assert all(name == dataset.name for name, dataset in DATASETS.items())


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_gives_messages_with_stamps_of_its_trace(name: str, data_root: Path):
    dataset = DATASETS[name]

    (trace,) = dataset.read(data_root, limit_traces=1)

    stamps = set(trace.frame["event_time_us"])
    messages = list(islice(dataset.messages(trace), 100))
    assert len(messages) == 100
    assert all(message.event_time_us in stamps for message in messages)
