"""The wheel as users get it: built from what git holds, installed into an empty environment."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).with_name("uv")


def source_files() -> list[Path]:
    """Return the files that git has or would take, relative to the root: what a clone of the next commit holds."""
    wanted = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(wanted, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [Path(name) for name in listed.split("\0") if name and (ROOT / name).exists()]


def build_wheel(folder: Path) -> Path:
    """Build from a copy in the folder: a build folder in the checkout would add modules deleted long ago."""
    for file in source_files():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, folder / file, follow_symlinks=False)
    argv = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist", "."]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"the wheel cannot be built:\n{done.stdout}{done.stderr}")
    (built,) = (folder / "dist").iterdir()
    return built


def install(wheel: Path, folder: Path) -> Path:
    """Install the wheel and what it needs, in the locked versions, into a new environment; return its executable."""
    python = folder / "bin" / "python"
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    argv = [str(UV), "pip", "install", "--quiet", "--constraint", "requirements.lock"]
    argv += ["--python", str(python), str(wheel)]
    # make setup has filled uv's cache, from which this is a matter of links
    if subprocess.run([*argv, "--offline"], cwd=ROOT, capture_output=True, check=False).returncode != 0:
        subprocess.run(argv, cwd=ROOT, check=True)
    return python.with_name("netpredict")
