"""From sound files to waveforms."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_zoo.data.source import DamagedFile
from ssl_zoo.errors import ConfigError

EXTRA = "pip install 'ssl_zoo[audio]'"
# Of what libsndfile reads, the names that people's files have. WAV is read without it.
SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff")


@dataclass(frozen=True)
class Reader:
    """Sound files as ``[C, L]`` float32 in [-1, 1].

    Args:
        sample_rate: Of all samples, in Hz.
        channels: 1: the mean of what a file has; otherwise a file must have as many.
        resample: Whether files of other rates are resampled; otherwise they are damaged ones.
    """

    sample_rate: int
    channels: int = 1
    resample: bool = False

    def __call__(self, path: str) -> Tensor:
        """One file.

        Raises:
            DamagedFile: If it cannot be read, is empty, holds numbers that are not finite, or is of another kind.
        """
        values, rate = read(path)
        if not values.shape[-1]:
            raise DamagedFile(path, "it holds no sound")
        if not np.isfinite(values).all():
            raise DamagedFile(path, "it holds numbers that are not finite")
        values = self._mixed(path, values)
        if rate == self.sample_rate:
            return torch.from_numpy(np.ascontiguousarray(values))
        if not self.resample:
            raise DamagedFile(path, self.other_rate(rate))
        return torch.from_numpy(resampled(values, rate, self.sample_rate))

    def other_rate(self, rate: int) -> str:
        """What is said of a file of another rate."""
        return f"it has {rate} Hz and the data {self.sample_rate}; data.source.resample=true makes them one rate"

    def _mixed(self, path: str, values: np.ndarray) -> np.ndarray:
        if self.channels == 1:
            return values.mean(0, keepdims=True)
        if len(values) != self.channels:
            raise DamagedFile(
                path, f"it has {len(values)} channels, and data.source.channels={self.channels}; 1 takes their mean"
            )
        return values


def read(path: str) -> tuple[np.ndarray, int]:
    """``[C, L]`` float32 in [-1, 1], and the rate in Hz.

    Raises:
        DamagedFile: If the file cannot be read.
        ConfigError: If it takes a library that is not installed.
    """
    if Path(path).suffix.lower() == ".wav":
        found = _wav(path)
        if found is not None:
            return found
    try:
        values, rate = _soundfile(path).read(path, dtype="float32", always_2d=True)
    except (RuntimeError, OSError, ValueError) as error:  # soundfile's own is a RuntimeError
        raise DamagedFile(path, _reason(error)) from None
    return values.T, int(rate)


def rate_of(path: str) -> int:
    """The rate of a file in Hz, from its head where a library for that is there.

    Raises:
        DamagedFile: If it cannot be read.
    """
    if Path(path).suffix.lower() == ".wav":
        return read(path)[1]
    try:
        return int(_soundfile(path).info(path).samplerate)
    except (RuntimeError, OSError, ValueError) as error:
        raise DamagedFile(path, _reason(error)) from None


def _wav(path: str) -> tuple[np.ndarray, int] | None:
    """What scipy reads of a WAV file; None where it holds a code that scipy does not know."""
    from scipy.io import wavfile

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", wavfile.WavFileWarning)  # chunks of other programs
            rate, values = wavfile.read(path)
    except ValueError as error:
        if "Unknown wave file format" in str(error):
            return None
        raise DamagedFile(path, _reason(error)) from None
    except Exception as error:  # a file that is cut off ends in whatever scipy does next: struct, index, memory
        raise DamagedFile(path, _reason(error)) from None
    return _unit(values[None] if values.ndim == 1 else values.T), int(rate)


def _unit(values: np.ndarray) -> np.ndarray:
    """Whole numbers by their type's range; 24 bits come as the upper ones of 32."""
    if values.dtype == np.uint8:
        return (values.astype(np.float32) - 128) / 128
    if np.issubdtype(values.dtype, np.integer):
        return (values / -float(np.iinfo(values.dtype).min)).astype(np.float32)
    return values.astype(np.float32)


def _soundfile(path: str) -> Any:
    try:
        import soundfile
    except (ImportError, OSError):  # OSError: its C library is missing
        raise ConfigError(f"{path}: reading {Path(path).suffix or 'this'} files takes soundfile: {EXTRA}") from None
    return soundfile


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def resampled(values: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """``[C, L]`` at another rate, by scipy's polyphase filter."""
    from scipy.signal import resample_poly

    common = math.gcd(rate, wanted)
    return resample_poly(values, wanted // common, rate // common, axis=-1).astype(np.float32)
