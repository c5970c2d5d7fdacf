import pytest
import safetensors.torch
import torch

from hf_tagger.training.checkpoint import write_safetensors
from hf_tagger.training.whole import whole_folder, written_whole


class Killed(BaseException):
    pass


def contents(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("write", [whole_folder, written_whole])
def test_what_was_there_stays_whole_until_the_new_is(tmp_path, write):
    folder = tmp_path / "model"
    for text in ("old", "new"):
        with write(folder) as aside:
            (aside / "tokens").mkdir()
            (aside / "tokens" / "vocabulary").write_text(text)
            (aside / "weights").write_text(text)
        assert contents(tmp_path) == {"model/weights": text, "model/tokens/vocabulary": text}
        with pytest.raises(Killed), write(folder) as aside:
            (aside / "weights").write_text("half")
            raise Killed
        assert (folder / "weights").read_text() == (folder / "tokens" / "vocabulary").read_text() == text


def test_a_folder_takes_the_place_of_another_and_files_come_beside_others(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "other").write_text("kept")
    with written_whole(tmp_path / "a") as aside:
        (aside / "new").write_text("")
    assert set(contents(tmp_path / "a")) == {"other", "new"}
    with whole_folder(tmp_path / "a") as aside:
        (aside / "new").write_text("")
    assert set(contents(tmp_path)) == {"a/new"}


def test_weights_are_written_whole_whatever_safetensors_does(tmp_path, monkeypatch):
    path = tmp_path / "best.safetensors"
    write_safetensors(path, {"a": torch.ones(3)})

    def dies_in_the_middle(tensors, filename):
        with open(filename, "wb") as file:
            file.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr("hf_tagger.training.checkpoint.save_file", dies_in_the_middle)
    with pytest.raises(OSError):
        write_safetensors(path, {"a": torch.zeros(3)})
    assert safetensors.torch.load_file(path)["a"].tolist() == [1, 1, 1]
