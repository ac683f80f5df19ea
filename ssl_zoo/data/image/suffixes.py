"""Which files are images: what the installed libraries read, by the suffixes of names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache

from PIL import Image, ImageFile, features

# Recognised by their content under any name, in this order; all others under their own suffixes only, because some of
# them have no signature, or one of a byte, and would be seen in damaged files of other kinds.
EVERYWHERE = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF", "HEIF")
LEFT_OUT = {
    "EPS": "Pillow would start another program",
    "IPTC": "Pillow would open whatever lies in it",
    "MPEG": "a video",
    "FITS": "Pillow leaves out their scaling; convert them to .npy or TIFF",
}
BUILT_IN = {"WEBP": "webp", "AVIF": "avif", "JPEG2000": "jpg_2000", "JPEG": "jpg"}  # if Pillow was built with them
# Of TIFF files too: microscopes' and slide scanners'. Pillow knows .tif and .tiff.
TIFF = (".btf", ".lsm", ".ndpi", ".ptif", ".ptiff", ".qptiff", ".scn", ".stk", ".svs", ".tf2", ".tf8")
HEIF = (".heic", ".heics", ".heif", ".heifs", ".hif")
PER_LINE = 6  # kinds of skipped files that a line names


@cache
def readable() -> dict[str, str]:
    """Suffix in small letters -> the format whose files are so called: ``NPY``, or a name of Pillow's."""
    _let_pillow_read_heif()
    found = {suffix: kind for suffix, kind in Image.registered_extensions().items() if _reads(kind)}
    return {**found, ".mpo": "JPEG", **dict.fromkeys(TIFF, "TIFF"), ".npy": "NPY"}


@cache
def _let_pillow_read_heif() -> None:
    """Photographs of telephones, where the package pillow-heif is installed (``pip install ssl_zoo[images]``)."""
    try:
        import pillow_heif
    except ImportError:
        return
    pillow_heif.register_heif_opener()


def _reads(kind: str) -> bool:
    if kind in LEFT_OUT or kind not in Image.OPEN:
        return False
    factory = Image.OPEN[kind][0]  # a class, or a function
    stub = isinstance(factory, type) and issubclass(factory, ImageFile.StubImageFile)  # says that it is one, no more
    return not stub and (kind not in BUILT_IN or bool(features.check(BUILT_IN[kind])))


def suffix(name: str) -> str:
    """``.png`` of ``a/B.PNG``; nothing for a name without one."""
    return os.path.splitext(name)[1].lower()


def formats(name: str = "") -> tuple[str, ...]:
    """What Pillow may take a file for, in the order in which it is asked.

    Args:
        name: Of the file. A suffix that nothing here reads, or none: anything that is readable.
    """
    return _formats(suffix(name))


@cache
def _formats(ending: str) -> tuple[str, ...]:
    kinds = set(readable().values()) - {"NPY"}
    first = tuple(kind for kind in EVERYWHERE if kind in kinds)
    own = readable().get(ending)
    others = sorted(kinds.difference(first)) if own is None else [own] if own not in (*first, "NPY") else []
    return (*first, *others)


def skipped(counts: Mapping[str, int]) -> str | None:
    """``skipped: 30 .xyz, 2 without a suffix``: a line, with what would help; None: nothing was skipped.

    Args:
        counts: Suffix -> number of files; "" for names without one.
    """
    if not counts:
        return None
    largest = sorted(counts, key=lambda ending: (-counts[ending], ending))
    told = [f"{counts[ending]:,} {ending or 'without a suffix'}" for ending in largest[:PER_LINE]]
    rest = sum(counts[ending] for ending in largest[PER_LINE:])
    told += [f"{rest:,} of {len(largest) - PER_LINE} other kinds"] if rest else []
    helps = dict.fromkeys(filter(None, map(_remedy, largest)))
    return "; ".join([f"skipped: {', '.join(told)}", *helps])


def _remedy(ending: str) -> str | None:
    if ending in HEIF:
        return f'pip install "ssl_zoo[images]" reads {ending}'
    kind = Image.registered_extensions().get(ending)
    if kind in BUILT_IN:
        return f"{ending}: this Pillow was built without it"
    return f"{ending}: {LEFT_OUT[kind]}" if kind in LEFT_OUT else None
