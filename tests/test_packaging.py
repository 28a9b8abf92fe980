"""What pip installs is what lies in the folders."""

import json
import subprocess
import sys
import tomllib
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

from tests.plugin_folders import plugin_folders
from tests.services.wheel import ROOT, source_files

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def packages_on_disk() -> list[str]:
    """The dotted names of all folders with an __init__.py, under the names they are imported by."""
    names = []
    for top, imported_as in (("netpredict", "netpredict"), ("plugins", "netpredict_plugins")):
        for init in (ROOT / top).rglob("__init__.py"):
            names.append(".".join([imported_as, *init.parent.relative_to(ROOT / top).parts]))
    return sorted(names)


def test_the_packages_list_is_the_folders() -> None:
    expected = packages_on_disk()
    as_toml = "\n".join(f'    "{name}",' for name in expected)
    assert PROJECT["tool"]["setuptools"]["packages"] == expected, f"write into pyproject.toml:\n{as_toml}"


def test_every_folder_with_modules_is_a_package() -> None:
    """A folder without __init__.py imports in a checkout and is missing from the wheel."""
    folders = {
        file.parent for file in source_files() if file.suffix == ".py" and file.parts[0] in {"netpredict", "plugins"}
    }
    assert [str(folder) for folder in sorted(folders) if not (ROOT / folder / "__init__.py").exists()] == []


def test_alembic_is_no_package() -> None:
    """With an __init__.py the folder would shadow the library at the root of the repository."""
    assert not (ROOT / "alembic" / "__init__.py").exists()
    asked = "import alembic, alembic.config; print(alembic.__file__)"
    done = subprocess.run([sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "site-packages" in done.stdout


def test_the_lock_files_name_no_address() -> None:
    for name in ("requirements.lock", "bootstrap.lock"):
        text = (ROOT / name).read_text()
        assert "://" not in text
        assert "--hash=sha256:" in text
    assert not (ROOT / "uv.lock").exists(), "it would write addresses of package hosts into the repository"


@pytest.mark.parametrize("folder", plugin_folders(), ids=lambda folder: folder.name)
def test_a_plugin_has_its_entry_point(folder: Path) -> None:
    kind = folder.parent.name
    entry_points = PROJECT["project"]["entry-points"][f"netpredict.{kind}"]
    assert entry_points.get(folder.name) == f"netpredict_plugins.{kind}.{folder.name}:PLUGIN"


@pytest.mark.slow
def test_the_wheel_carries_every_file(wheel: Path) -> None:
    carried = set(zipfile.ZipFile(wheel).namelist())
    expected = set()
    for file in source_files():
        top, *rest = file.parts
        if top == "plugins" and (file.suffix == ".py" or file.name in {"sample.toml", "README.md"}):
            expected.add("/".join(["netpredict_plugins", *rest]))
        if top == "netpredict" and file.suffix in {".py", ".json"}:
            expected.add(file.as_posix())
        if top == "alembic" and file.suffix in {".py", ".mako"}:
            expected.add("/".join(["netpredict", "migrations", *rest]))
    assert expected - carried == set()
    assert {name.split("/")[0] for name in carried} == {
        "netpredict",
        "netpredict_plugins",
        "netpredict-0.1.0.dist-info",
    }


@pytest.mark.slow
def test_the_wheel_announces_the_command_and_the_plugins(wheel: Path) -> None:
    parser = ConfigParser(delimiters=("=",))
    parser.read_string(zipfile.ZipFile(wheel).read("netpredict-0.1.0.dist-info/entry_points.txt").decode())
    announced = {section: dict(parser[section]) for section in parser.sections()}
    declared = PROJECT["project"]["entry-points"] | {"console_scripts": PROJECT["project"]["scripts"]}
    assert announced == declared


@pytest.mark.slow
def test_the_installed_wheel_needs_no_checkout(installed_wheel: Path, tmp_path: Path) -> None:
    asked = (
        "import importlib.resources, netpredict, netpredict_plugins, netpredict.ingest.messages;"
        "print(netpredict.__file__, netpredict_plugins.__file__, importlib.resources.files('netpredict'), sep='\\n')"
    )
    argv = [installed_wheel.with_name("python"), "-c", asked]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(line.startswith(str(installed_wheel.parents[1])) for line in done.stdout.splitlines())
    assert installed_wheel.exists()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_installed_wheel_does_the_whole_job_outside_the_checkout(installed_wheel: Path, tmp_path: Path) -> None:
    """Demo, migrations and all plugins from an environment that never saw the checkout."""

    def netpredict(*words: str) -> str:
        command = [str(installed_wheel), *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, f"{words}: {done.stderr[-3000:]}"
        return done.stdout

    assert netpredict("--version").split()[-1] == "0.1.0"
    listed = json.loads(netpredict("plugins", "--json"))
    assert {plugin["name"] for plugin in listed["plugins"]} == {folder.name for folder in plugin_folders()}
    assert all(plugin["importable"] for plugin in listed["plugins"])
    netpredict("db", "upgrade", "--url", f"sqlite:///{tmp_path}/fresh.db")
    assert "as it should be" in netpredict("db", "check", "--url", f"sqlite:///{tmp_path}/fresh.db")
    netpredict("demo", "--plain", "--seconds", "5", "--radio-cells", "40")
    assert (tmp_path / "netpredict-demo-1" / "forecast.png").stat().st_size > 10_000
