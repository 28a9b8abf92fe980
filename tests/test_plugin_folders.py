"""A newcomer copies a plugin's folder, so every folder is complete."""

from pathlib import Path

import pytest

from netpredict import plugins
from tests.plugin_folders import KINDS, PLUGINS, plugin_folders


def test_plugins_lie_in_the_folder_of_their_kind() -> None:
    kinds = {folder.name for folder in PLUGINS.iterdir() if folder.is_dir()} - {"__pycache__"}
    assert kinds == set(KINDS)


@pytest.mark.parametrize("folder", plugin_folders(), ids=lambda folder: folder.name)
def test_a_plugin_folder_is_complete(folder: Path) -> None:
    needed = {"__init__.py", "README.md", "sample.toml", f"test_{folder.name}.py"}
    assert needed <= {file.name for file in folder.iterdir()}


def test_a_plugin_in_use_is_found_while_its_package_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    found = plugins.load("predictors", "naive")
    monkeypatch.setattr(plugins, "entry_points", lambda **_: [])
    assert plugins.load("predictors", "naive") is found
