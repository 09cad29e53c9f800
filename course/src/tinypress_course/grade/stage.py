"""What a sandbox shows, and nothing besides: Python's standard library, PyTorch with what it needs, the worker.

Everything is shown read-only under its own path. Site-packages are not: the chosen packages are reached through a
folder of links, so that what lies beside them, the toolkit above all, cannot be imported.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from tinypress_course.errors import CourseError

COURSE_FILES = (
    "__init__.py",
    "kit.py",
    "models.py",
    "probes.py",
    "stand_in.py",
    "wire.py",
    "worker.py",
    "grade/__init__.py",
    "grade/confine.py",
    "grade/syscalls.py",
)
PACKAGES = ("torch", "numpy", "safetensors")
# what the machine is, which PyTorch asks to choose its kernels; shown where it is there
MACHINE_FACTS = ("/proc/cpuinfo", "/sys/devices/system/cpu", "/etc/ld.so.cache")
DEVICES = ("/dev/null", "/dev/urandom")
_NOT_SHOWN = {"site-packages", "dist-packages", "test", "idlelib", "lib2to3", "ensurepip", "turtledemo"}
_LIBRARY_FOLDERS = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "LANG": "C.UTF-8",
    "USER": "learner",
}


@dataclass(frozen=True)
class Stage:
    """``folder`` holds the worker and the links; ``shown`` are files and folders, ``links`` (path, target)."""

    folder: Path
    python: Path
    shown: tuple[Path, ...]
    links: tuple[tuple[Path, str], ...]

    def program(self, code: str) -> list[str]:
        """The command that runs ``code`` with the course's worker and the packages, and nothing else."""
        places = [str(self.folder / "course"), str(self.folder / "packages")]
        begin = f"import sys; sys.path[:0] = {places!r}; {code}"
        return [str(self.python), "-I", "-S", "-B", "-c", begin]


def build_stage(folder: Path) -> Stage:
    """Lay out in ``folder`` what a sandbox shows.

    Raises:
        CourseError: PyTorch does not start with what was found.
    """
    python = Path(sys.executable).resolve()
    own = Path(__file__).parents[1]
    for name in COURSE_FILES:
        copy = folder / "course" / "tinypress_course" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(own / name, copy)
    packages = [path for name in needed_distributions(PACKAGES) for path in _parts(distribution(name))]
    links = folder / "packages"
    links.mkdir()
    for path in packages:
        (links / path.name).symlink_to(path)
    folder.chmod(0o755)
    shown = [folder, python, *_standard_library(), *packages]
    stage = Stage(folder, python, tuple(shown), ())
    libraries = [path for path in _libraries(stage) if not any(path.is_relative_to(s) for s in shown)]
    return Stage(folder, python, (*shown, *libraries), tuple(_links_to({*libraries, python})))


def needed_distributions(wanted: tuple[str, ...]) -> list[str]:
    """The distributions called ``wanted`` and those that they require, as far as they are installed."""
    found: dict[str, None] = {}
    queue = list(wanted)
    while queue:
        name = re.sub(r"[-_.]+", "-", queue.pop(0)).lower()
        if name in found:
            continue
        try:
            requires = distribution(name).requires or []
        except PackageNotFoundError:
            continue  # for another system
        found[name] = None
        names = (re.match(r"[A-Za-z0-9._-]+", line) for line in requires if "extra ==" not in line)
        queue += [match[0] for match in names if match]
    return list(found)


def _parts(installed: Distribution) -> list[Path]:
    """The packages and modules at the top of an installed distribution."""
    tops = {file.parts[0] for file in installed.files or () if file.parts[0] not in ("..", "__pycache__")}
    kept = sorted(top for top in tops if not top.endswith((".dist-info", ".egg-info", ".pth")))
    return [path for top in kept if (path := Path(str(installed.locate_file(top))).resolve()).exists()]


def _standard_library() -> list[Path]:
    folders = {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")}
    return [
        each for folder in sorted(folders) for each in sorted(folder.iterdir()) if each.name not in _NOT_SHOWN
    ]


def _libraries(stage: Stage) -> list[Path]:
    """The shared libraries that the worker opens, found by running it once without a learner's code."""
    command = stage.program("from tinypress_course.worker import scout; scout()")
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise CourseError(
            f"PyTorch does not start for the sandbox ({last}). Install it again: pip install --force-reinstall torch"
        )
    return [Path(name) for name in json.loads(done.stdout.splitlines()[-1])]


def _links_to(files: set[Path]) -> list[tuple[Path, str]]:
    """Symbolic links by which the loader finds ``files``, and links of folders on the way there."""
    folders = {Path(name) for name in _LIBRARY_FOLDERS} | {path.parent for path in files}
    links = [(folder, str(folder.readlink())) for folder in sorted(folders) if folder.is_symlink()]
    for folder in sorted({folder.resolve() for folder in folders if folder.is_dir()}):
        for each in sorted(folder.iterdir()):
            if each.is_symlink() and each.resolve() in files:
                links.append((each, str(each.readlink())))
    return links
