import os
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True, scope="session")
def installed_predictors(tmp_path_factory):
    """In a checkout that is not installed, give this process and its children the entry points."""
    if entry_points(group="netpredict.predictors"):
        yield
        return
    site = tmp_path_factory.mktemp("site")
    (site / "netpredict_plugins").symlink_to(REPOSITORY / "plugins")
    info = site / "netpredict_checkout-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: netpredict-checkout\nVersion: 0\n")
    names = ("gru", "lstm", "simple_rnn", "naive", "seasonal_naive")
    points = "\n".join(f"{name} = netpredict_plugins.predictors.{name}:PLUGIN" for name in names)
    (info / "entry_points.txt").write_text(f"[netpredict.predictors]\n{points}\n")
    paths = [str(REPOSITORY), str(site)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*paths, *sys.path])
        patch.setenv("PYTHONPATH", os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")]))
        yield
