"""What a sample is stands in the folders of its modality, and nowhere that serves all of them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "ssl_zoo"
PACKAGES = ("data", "augmentations", "backbones")
MODALITIES = sorted({path.parent.name for package in PACKAGES for path in SOURCE.glob(f"{package}/*/__init__.py")})
# What is about one kind of samples by its nature: methods and their parts, pictures, and what was called otherwise.
OWN = ("methods", "modules", "losses", "report", "renamed.py")
# Words that mean something else there: a setting of folders, and what people call the parts of a data set.
OTHERWISE = {"config.py": {"table"}, "data/split_names.py": {"image"}}


def shared() -> list[Path]:
    """Files that serve samples of any kind."""
    folders = [SOURCE / package / name for package in PACKAGES for name in MODALITIES]
    own = [*folders, *(SOURCE / name for name in OWN), SOURCE / "conf"]
    return [path for path in sorted(SOURCE.rglob("*.py")) if not any(path.is_relative_to(place) for place in own)]


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def words(tree: ast.AST) -> Iterator[str]:
    """Names of modalities, of their operations and modules, in strings."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            for name in MODALITIES:
                if node.value == name or node.value.startswith((f"{name}/", f"{name}.")):
                    yield node.value


def test_images_are_one_of_them() -> None:
    assert "image" in MODALITIES and len(shared()) > 80


@pytest.mark.parametrize("path", shared(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_nothing_shared_knows_a_modality(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = tuple(f"ssl_zoo.{package}.{name}" for package in PACKAGES for name in MODALITIES)
    packing = path.name == "cli.py"  # `ssl-zoo pack` is about images
    assert [name for name in imported(tree) if name.startswith(inside) and not packing] == []
    assert set(words(tree)) <= OTHERWISE.get(path.relative_to(SOURCE).as_posix(), set())


def test_a_word_of_a_modality_would_be_found() -> None:
    tree = ast.parse('from ssl_zoo.data.image.folder import folder\nif kind == "image" or op == "image/flip": pass')
    assert list(imported(tree)) == ["ssl_zoo.data.image.folder.folder"] and list(words(tree)) == ["image", "image/flip"]
