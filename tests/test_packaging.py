"""What is installed is what is in the repository."""

import configparser
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BESIDE = {"ssl_zoo.conf", "ssl_zoo.benchmarks"}  # folders beside ssl_zoo that are shipped inside it


def configuration() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def test_every_package_is_listed():
    listed = configuration()["options"]["packages"].split()
    found = [path.parent.relative_to(ROOT) for path in (ROOT / "ssl_zoo").rglob("*.py")]
    assert sorted(listed) == sorted({".".join(path.parts) for path in found} | BESIDE)


def test_every_package_has_an_init():
    folders = {path.parent for path in (ROOT / "ssl_zoo").rglob("*.py")} | {ROOT / "conf", ROOT / "benchmarks"}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_nothing_has_a_ceiling():
    needed = configuration()["options"]["install_requires"].split()
    assert [name for name in needed if "<" in name or "==" in name or ">=" not in name] == []


def test_ignored_files_do_not_hide_the_project():
    patterns = (ROOT / ".gitignore").read_text().split()
    assert "/data/" in patterns and "data/" not in patterns


@pytest.mark.slow
def test_the_wheel_holds_every_configuration(tmp_path: Path):
    clone = tmp_path / "clone"  # built aside: a build folder in the repository would keep files that were removed since
    for name in ("ssl_zoo", "conf", "benchmarks"):
        shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, clone)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(clone)]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    wanted = {"ssl_zoo/conf/" + path.relative_to(ROOT / "conf").as_posix() for path in (ROOT / "conf").rglob("*.yaml")}
    wanted |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "ssl_zoo").rglob("*.py")}
    wanted |= {"ssl_zoo/" + path.relative_to(ROOT).as_posix() for path in (ROOT / "benchmarks").glob("*.py")}
    assert wanted - packed == set()
