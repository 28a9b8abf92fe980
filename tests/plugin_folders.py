"""The plugins of the tree, found on disk."""

from pathlib import Path

PLUGINS = Path(__file__).parents[1] / "plugins"
KINDS = ("predictors", "decoders", "hooks", "actuators")


def plugin_folders() -> list[Path]:
    """Return the folder of every plugin, whatever it holds."""
    folders = [folder for kind in KINDS for folder in (PLUGINS / kind).iterdir() if folder.is_dir()]
    return sorted(folder for folder in folders if folder.name != "__pycache__")
