"""``netpredict evaluate handover --dataset wmnlab`` as it is called."""

from pathlib import Path

import pytest


@pytest.mark.data
def test_an_unknown_scene_and_too_few_drives_are_told(cli, data_folder: Path, monkeypatch):
    monkeypatch.setenv("NETPREDICT_DATA", str(data_folder))
    words = ("evaluate", "handover", "--dataset", "wmnlab")
    assert "take liberal, conservative, warning" in cli(*words, "--scene", "v060").stderr
    assert "take more traces" in cli(*words, "--limit-traces", 6).stderr
