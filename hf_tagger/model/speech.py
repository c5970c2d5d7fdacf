"""Spoken descriptions: transcribes an audio file or array with a speech recogniser of transformers.

The extra `speech` brings soundfile, which decodes files, and scipy, which resamples. Arrays at the recogniser's own
sampling rate need neither.
"""

import io
import math
import os
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from transformers import Pipeline, pipeline

MAX_SECONDS = 600
MAX_BYTES = 200 * 2**20
INSTALL = "pip install 'hf_tagger[speech]'"

_OPENING = threading.Lock()


class AudioError(ValueError):
    """Audio that cannot be read or recognised; the message says what to do."""


def open_recognizer(name: str, device, opened: dict[str, Pipeline]) -> Pipeline:
    """The recogniser of a checkpoint (a folder or a Hub id), opened when first asked for and kept in `opened`."""
    with _OPENING:
        if name not in opened:
            try:
                opened[name] = pipeline("automatic-speech-recognition", model=name, device=device)
            except (OSError, ValueError, KeyError) as error:
                raise AudioError(f"no speech recogniser can be opened from {name!r} ({error}): name a folder or Hub id "
                                 "of a checkpoint for automatic speech recognition") from error
        return opened[name]


def transcribe(recognizer: Pipeline, audio: Any) -> str:
    """The spoken text, "" for silence, as `pipeline("automatic-speech-recognition")` hears it. `audio`: a path, encoded
    bytes, a float (between -1 and 1) or integer array [samples] or [samples, channels] at the recogniser's sampling
    rate, {"array" or "raw": such an array, "sampling_rate": in hertz}, or an undecoded `datasets` audio {"bytes",
    "path"}.

    Raises AudioError for audio that cannot be read, and if the recogniser fails.
    """
    rate = recognizer.feature_extractor.sampling_rate
    samples = read_audio(audio, rate)
    whisper = getattr(recognizer, "type", None) == "seq2seq_whisper"
    long = whisper and len(samples) > recognizer.feature_extractor.n_samples
    try:
        # Whisper takes 30 seconds at a time; longer audio is followed by its timestamps.
        found = recognizer({"raw": samples, "sampling_rate": rate}, **({"return_timestamps": True} if long else {}))
    except (ValueError, TypeError, RuntimeError) as error:
        raise AudioError(f"the speech recogniser failed: {error}") from error
    return " ".join(found["text"].split())


def read_audio(audio: Any, rate: int) -> np.ndarray:
    """`audio`, as `transcribe` takes it, as float32 [samples] of one channel at `rate` hertz."""
    own_rate = rate
    if isinstance(audio, Mapping):
        samples, own_rate = audio.get("array", audio.get("raw")), audio.get("sampling_rate")
        if samples is not None and (not isinstance(own_rate, int) or own_rate <= 0):
            raise AudioError(f'an audio dict with an array needs its "sampling_rate" in hertz, got {own_rate!r}')
        audio = audio.get("bytes") or audio.get("path") if samples is None else samples
        if audio is None:
            raise AudioError('an audio dict needs "array" and "sampling_rate", or "bytes" or "path"')
    if isinstance(audio, str | os.PathLike | bytes):
        audio, own_rate = _decode(audio)
    return _resample(_one_channel(audio), own_rate, rate)


def _decode(source: str | os.PathLike | bytes) -> tuple[np.ndarray, int]:
    name = "audio bytes" if isinstance(source, bytes) else repr(os.fspath(source))
    if "://" in name:
        raise AudioError(f"{name}: audio is not fetched from URLs; pass a path or bytes")
    if not isinstance(source, bytes) and not os.path.isfile(source):
        raise AudioError(f"there is no file {name}")
    size = len(source) if isinstance(source, bytes) else os.path.getsize(source)
    if not 0 < size <= MAX_BYTES:
        raise AudioError(f"{name} has {size} bytes: pass audio of at most {MAX_BYTES // 2**20} MiB")
    try:
        import soundfile
    except ImportError as error:
        raise AudioError(f"{name}: audio files are decoded by soundfile, which is not installed: {INSTALL}; or pass an "
                         "array") from error
    try:
        with soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else source) as file:
            _check_length(file.frames, file.samplerate)
            return file.read(dtype="float32"), file.samplerate
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{name} cannot be decoded ({error}): convert it to wav, flac, ogg or mp3") from error


def _one_channel(samples: Any) -> np.ndarray:
    samples = np.asarray(samples)
    if samples.dtype.kind not in "fiu" or samples.ndim not in (1, 2) or not samples.size:
        raise AudioError(f"an array of shape {samples.shape} and type {samples.dtype} is not audio: pass numbers "
                         "[samples] or [samples, channels]")
    if samples.dtype.kind in "iu":
        limits = np.iinfo(samples.dtype)
        middle = (limits.max + limits.min + 1) / 2
        samples = (samples.astype(np.float32) - middle) / (limits.max - middle + 1)
    samples = samples.astype(np.float32)
    if not np.isfinite(samples).all():
        raise AudioError("the audio array holds numbers that are not finite")
    return samples.mean(1) if samples.ndim == 2 else samples


def _resample(samples: np.ndarray, own_rate: int, rate: int) -> np.ndarray:
    _check_length(len(samples), own_rate)
    if own_rate == rate:
        return samples
    try:
        from scipy.signal import resample_poly
    except ImportError as error:
        raise AudioError(f"the audio has {own_rate} samples a second and the recogniser hears {rate}: scipy, which "
                         f"would bring the one to the other, is not installed: {INSTALL}") from error
    common = math.gcd(own_rate, rate)
    return resample_poly(samples, rate // common, own_rate // common).astype(np.float32)


def _check_length(samples: int, rate: int) -> None:
    if samples > MAX_SECONDS * rate:
        raise AudioError(f"the audio lasts {samples / rate:.0f} seconds: cut it to {MAX_SECONDS} at most")


__all__ = ["AudioError", "open_recognizer", "read_audio", "transcribe"]
