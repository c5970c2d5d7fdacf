"""From what is said to the tags: a real Whisper, trained within the test, and a real tagger."""

import sys

import numpy as np
import pytest
from transformers import pipeline

from hf_tagger.model.pipeline_tagger import ProductTaggingPipeline
from hf_tagger.model.products import ProductError
from hf_tagger.model.speech import AudioError, read_audio
from tests.tiny_tagger import photo, tiny_model, tiny_processor, trained_tagger
from tests.tiny_whisper import RATE, save_tiny_whisper, tone

MUG, DRESS = 440, 1760


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whisper")
    save_tiny_whisper(folder)
    return str(folder)


@pytest.fixture(scope="module")
def tagger():
    model, processor = trained_tagger()
    return ProductTaggingPipeline(model, processor=processor)


def labels(tags):
    return {tag["label"] for tag in tags if tag["attribute"] != "features"}


def test_a_spoken_description_is_tagged_by_what_is_said(tagger, whisper):
    red_mug, blue_dress = tagger([{"audio": tone(MUG)}, {"audio": tone(DRESS)}], speech=whisper)
    assert (labels(red_mug), labels(blue_dress)) == ({"Red", "Mug"}, {"Blue", "Dress"})
    assert tagger({"audio": tone(MUG)}, speech=whisper) == tagger("red mug")


def test_the_transcript_joins_text_and_photo(tagger, whisper):
    assert tagger.preprocess({"title": "waterproof", "audio": tone(MUG), "image": photo()}, speech=whisper)[
        "text"] == "waterproof. red mug"
    assert tagger({"text": "waterproof", "audio": tone(DRESS)}, speech=whisper) == tagger("waterproof. blue dress")


def test_the_recogniser_is_named_by_the_call_the_pipeline_or_the_config(tagger, whisper, tmp_path):
    tagger.save_pretrained(tmp_path)
    named = pipeline("product-tagging", model=str(tmp_path), speech=whisper)
    opened = pipeline("automatic-speech-recognition", model=whisper)
    assert labels(named({"audio": tone(MUG)})) == labels(tagger({"audio": tone(MUG)}, speech=opened)) == {"Red", "Mug"}
    named.model.config.speech = whisper
    named.model.config.save_pretrained(tmp_path)
    assert labels(pipeline("product-tagging", model=str(tmp_path))({"audio": tone(DRESS)})) == {"Blue", "Dress"}


def test_files_bytes_dicts_and_other_rates_are_heard_alike(tagger, whisper, tmp_path):
    soundfile = pytest.importorskip("soundfile")
    stereo = np.stack([tone(MUG, rate=44_100)] * 2, axis=1)
    soundfile.write(tmp_path / "mug.wav", stereo, 44_100)
    soundfile.write(tmp_path / "mug.flac", tone(MUG), RATE)
    data = (tmp_path / "mug.flac").read_bytes()
    loud = (tone(MUG) * 32767).astype(np.int16)
    heard = [str(tmp_path / "mug.wav"), tmp_path / "mug.flac", data, {"bytes": data, "path": None}, loud,
             {"array": stereo, "sampling_rate": 44_100}, {"raw": tone(MUG, rate=8000), "sampling_rate": 8000}]
    assert {tagger.transcribe(audio, whisper) for audio in heard} == {"red mug"}


def test_integers_of_any_kind_become_the_same_samples():
    wave = tone(MUG)
    for kind, middle, top in (("int16", 0, 2**15), ("int32", 0, 2**31), ("uint8", 128, 2**7)):
        given = (wave.astype(np.float64) * (top - 1) + middle).astype(kind)
        assert read_audio(given, RATE) == pytest.approx(wave, abs=0.02)


def test_what_is_longer_than_whisper_hears_at_once_is_heard_to_its_end(tagger, whisper):
    assert tagger.transcribe(tone(MUG, 2.5), whisper).startswith("red mug")


def test_without_a_recogniser_the_error_says_how(tagger):
    with pytest.raises(ProductError, match='item 0: audio needs a speech recogniser: give the pipeline speech="'):
        tagger({"audio": tone(MUG)})
    skipped = tagger([{"audio": tone(MUG)}, "red mug"], on_error="skip")
    assert "speech recogniser" in skipped[0]["error"] and labels(skipped[1]) == {"Red", "Mug"}


@pytest.mark.parametrize("audio, message", [
    ("missing.wav", "there is no file 'missing.wav'"),
    ("https://example.org/a.wav", "not fetched from URLs"),
    (b"no audio at all", "cannot be decoded"),
    (b"", "has 0 bytes"),
    (np.zeros((2, 2, 2), np.float32), "is not audio"),
    (np.array(["a"]), "is not audio"),
    (np.array([np.nan, 0.0]), "not finite"),
    ({"path": None}, 'needs "array" and "sampling_rate"'),
    ({"array": np.zeros(10)}, "needs its \"sampling_rate\""),
    (np.zeros(601 * RATE, np.float32), "cut it to 600"),
])  # fmt: skip
def test_what_cannot_be_heard_says_why(tagger, whisper, audio, message):
    with pytest.raises(ProductError, match=f"audio: .*{message}"):
        tagger({"audio": audio}, speech=whisper)


def test_what_is_not_installed_is_named(monkeypatch, tmp_path):
    (tmp_path / "mug.wav").write_bytes(b"RIFF")
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(AudioError, match=r"pip install 'hf_tagger\[speech\]'"):
        read_audio(tmp_path / "mug.wav", RATE)
    monkeypatch.setitem(sys.modules, "scipy.signal", None)
    with pytest.raises(AudioError, match=r"pip install 'hf_tagger\[speech\]'"):
        read_audio({"array": tone(MUG, rate=8000), "sampling_rate": 8000}, RATE)


def test_a_recogniser_that_is_none_says_so(tagger, tmp_path):
    with pytest.raises(ProductError, match="no speech recogniser can be opened from"):
        tagger({"audio": tone(MUG)}, speech=str(tmp_path))


def test_silence_alone_is_no_product_and_a_model_that_reads_photos_passes_it_over(whisper):
    class Silent:
        feature_extractor = type("Extractor", (), {"sampling_rate": RATE})

        def __call__(self, audio):
            return {"text": " "}

    model = ProductTaggingPipeline(tiny_model(), processor=tiny_processor())
    with pytest.raises(ProductError, match="no word was heard"):
        model({"audio": tone(MUG)}, speech=Silent())
    assert model.preprocess({"audio": tone(MUG), "image": photo()}, speech=Silent())["text"] is None
    photos_only = ProductTaggingPipeline(tiny_model(text=False), processor=tiny_processor())
    assert photos_only.preprocess({"audio": tone(MUG), "image": photo()}, speech=whisper)["text"] is None
