"""What a saved folder carries, and how it opens: by hf_tagger, or by its own code where hf_tagger is not installed,
from disk and from the Hub.

Two processes do all of the latter, for what takes long is importing torch and transformers."""

import json
import os
import re
import stat
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import pytest
import torch
import transformers
from packaging.requirements import Requirement
from packaging.version import Version
from transformers import AutoConfig, AutoModel, AutoProcessor, pipeline

import hf_tagger
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.evaluation.protocols import open_tagger
from hf_tagger.model.pipeline_tagger import ProductTaggingPipeline
from hf_tagger.model.saving import FORMAT, FormatError
from hf_tagger.runtime import ArtefactError, OnnxTagger
from hf_tagger.training.build import load_model, with_lora
from hf_tagger.training.lora import save_adapter
from hf_tagger.training.settings import LoraSettings
from tests.fake_hub import FakeHub
from tests.processes import run_python
from tests.tiny_tagger import photo, tiny_model, tiny_processor, trained_tagger
from tests.tiny_writer import add_tiny_decoder, writing_tagger

ROOT = Path(__file__).parents[2]
MOST_FILES = 18
PERSONALIZATION = {"half_life_days": 30.0, "prior": 2.0, "gates": {"colour": 1.0}}
PARTS = {
    "decoder": {"decoder.py", "generation.py"},
    "personalization": {"reranking.py"},
    "speech": {"speech.py"},
    "handler": {"handler.py"},
}


def full_tagger(*parts):
    """A pipeline whose model has these parts."""
    model, processor = tiny_model(), tiny_processor()
    if "decoder" in parts:
        add_tiny_decoder(model, processor)
    if "personalization" in parts:
        model.config.personalization = PERSONALIZATION
    if "speech" in parts:
        model.config.speech = "openai/whisper-small"
    return ProductTaggingPipeline(model.eval(), processor=processor)


def save(folder, *parts):
    full_tagger(*parts).save_pretrained(folder, handler="handler" in parts)
    return folder


def code(folder):
    return {path.name for path in folder.glob("*.py")}


@pytest.mark.parametrize("parts", [*[(part,) for part in PARTS], ("speech", "personalization"), tuple(PARTS)])
def test_a_folder_carries_the_code_that_its_model_uses_and_no_other(parts, tmp_path):
    plain = code(save(tmp_path / "plain"))
    assert {"configuration_tagger.py", "modeling_tagger.py", "processing_tagger.py", "pipeline_tagger.py"} < plain
    found = code(save(tmp_path / "model", *parts))
    assert found - plain == set().union(*(PARTS[part] for part in parts)) and plain < found
    assert len(found) <= MOST_FILES
    shipped = {path.name for path in Path(hf_tagger.__file__).with_name("model").glob("*.py")}
    assert found <= shipped - {"__init__.py", "urls.py"}
    for file in (tmp_path / "model").glob("*.py"):
        assert not re.search(r"^\s*(from|import) hf_tagger", file.read_text(encoding="utf-8"), re.MULTILINE)


def test_files_can_be_read_by_whom_the_umask_lets(tmp_path):
    old = os.umask(0o022)
    try:
        save(tmp_path, "decoder")
        base = AutoModel.from_pretrained(tmp_path)
        save_adapter(with_lora(base, LoraSettings(rank=2)), tmp_path / "adapter", base=tmp_path)
    finally:
        os.umask(old)
    modes = {str(path.relative_to(tmp_path)): stat.S_IMODE(path.stat().st_mode)
             for path in tmp_path.rglob("*") if path.is_file()}
    assert {"model.safetensors", "adapter/adapter_model.safetensors"} <= set(modes)
    assert set(modes.values()) == {0o644}


@pytest.fixture
def first_edition(tmp_path):
    """A folder as the first hf_tagger saved it: no format is named."""
    save(tmp_path)
    for name in ("config.json", "processor_config.json"):
        stored = json.loads((tmp_path / name).read_text(encoding="utf-8"))
        assert stored.pop("format_version") == FORMAT
        (tmp_path / name).write_text(json.dumps(stored), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("opened", [
    AutoConfig.from_pretrained, AutoModel.from_pretrained, AutoProcessor.from_pretrained,
    hf_tagger.TaggerConfig.from_pretrained, hf_tagger.TaggerModel.from_pretrained,
    hf_tagger.TaggerProcessor.from_pretrained, lambda folder: pipeline("product-tagging", model=str(folder)),
])
def test_a_folder_of_the_first_edition_is_refused_with_what_to_do(first_edition, opened):
    with pytest.raises(FormatError, match=rf"format 1.*reads format {FORMAT}: train it again with its "
                                          r"training_config.yaml, or install 'hf_tagger<0.2'"):
        opened(first_edition)


@pytest.mark.parametrize("opened", [load_model, lambda folder: open_tagger(folder, torch.device("cpu"))])
def test_recipes_say_so_as_of_any_wrong_setting(first_edition, opened):
    with pytest.raises(ConfigError, match="train it again"):
        opened(str(first_edition))


def test_so_is_an_adapter_of_it(first_edition, tmp_path):
    save_adapter(with_lora(tiny_model(), LoraSettings(rank=2)), tmp_path / "adapter", base=first_edition)
    with pytest.raises(FormatError, match="train it again"):
        pipeline("product-tagging", model=str(tmp_path / "adapter"))


def test_so_is_an_export_of_it(tmp_path):
    pytest.importorskip("onnxruntime")
    (tmp_path / "tagger.json").write_text(json.dumps({"format": 1, "files": {}}), encoding="utf-8")
    with pytest.raises(ArtefactError, match="format 1.*export the model again, or install 'hf_tagger<0.2'"):
        OnnxTagger(tmp_path)


def test_a_folder_of_a_later_format_asks_for_a_newer_hf_tagger(tmp_path):
    save(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(stored | {"format_version": FORMAT + 1}), encoding="utf-8")
    with pytest.raises(FormatError, match=f"format {FORMAT + 1}.*pip install --upgrade hf_tagger"):
        AutoModel.from_pretrained(tmp_path)


# The first two, models and processors, are pushed each by itself, in the order in which the one could undo the other's
# code.
PUSH = """
import json, sys
from transformers import AutoModel, AutoProcessor, pipeline
import hf_tagger

for name, repository in zip(sys.argv[1:3], ("shop/plain", "shop/writer")):
    AutoModel.from_pretrained(name).push_to_hub(repository)
    AutoProcessor.from_pretrained(name).push_to_hub(repository)
AutoModel.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[5], push_to_hub=True, repo_id="shop/both")
whole, trained, taught = (pipeline("product-tagging", model=folder) for folder in sys.argv[2:5])
whole.push_to_hub("shop/whole")
trained.push_to_hub("shop/trained", handler=True)
taught.push_to_hub("shop/taught")
print(json.dumps(pipeline("product-tagging", model="shop/trained")("red mug")))
"""

WITHOUT_THE_PACKAGE = """
import base64, importlib.util, json, sys
sys.modules["hf_tagger"] = sys.modules["ftfy"] = None  # importing them is an error from here on
from transformers import AutoModel, AutoProcessor, pipeline

def open_parts(name):
    return (AutoModel.from_pretrained(name, trust_remote_code=True),
            AutoProcessor.from_pretrained(name, trust_remote_code=True))

def refusal(call, *arguments, **options):
    try:
        return call(*arguments, **options)
    except (ImportError, ValueError) as error:
        return str(error)

plain, whole, trained, _, again, photo = sys.argv[1:]
found = {"scores": [], "written": []}
for name in (plain, whole, "shop/plain", "shop/writer", "shop/both"):
    model, processor = open_parts(name) if name != "shop/both" else (
        AutoModel.from_pretrained(name, trust_remote_code=True), processor)
    batch = processor(text=["red mug"])
    output = model(**batch)
    found["scores"].append(model.tag_scores(output.tag_logits, output.none_logits)[0].tolist())
    if model.config.decoder:
        found["written"].append(model.generate(**batch, max_new_tokens=3).tolist())

tagger = pipeline("product-tagging", model="shop/whole", trust_remote_code=True, device="cpu")
history = [{"label": "Blue", "attribute": "colour"}]
options = {"threshold": 0, "free_form": True, "user_history": history}
found["whole"] = tagger("red mug", **options)
found["answer"] = tagger.answer({"inputs": "red mug", "parameters": {"threshold": 0}})
# What was opened by its own code saves it once more.
tagger.save_pretrained(again)
found["again"] = pipeline("product-tagging", model=again, trust_remote_code=True, device="cpu")("red mug", **options)

tagger = pipeline("product-tagging", model=plain, trust_remote_code=True, device="cpu")
found["refused"] = {
    "free_form": refusal(tagger, "red mug", free_form=True),
    "user_history": refusal(tagger, "red mug", user_history=history),
    "speech": refusal(tagger, {"audio": [0.0]}, speech="openai/whisper-small"),
    "answer": refusal(tagger.answer, {"inputs": "red mug"}),
    "url": refusal(tagger, {"image": "https://example.org/a.jpg"}, allow_urls=True),
    "decoder": refusal(tagger.model.add_decoder, {"vocab_size": 100}, None),
}

found["trained"] = []
for name in (trained, "shop/trained"):
    tagger = pipeline("product-tagging", model=name, trust_remote_code=True)
    found["trained"].append(tagger(["red mug", {"image": photo}, {}], on_error="skip"))
writer = pipeline("product-tagging", model="shop/taught", trust_remote_code=True)
found["taught"] = writer("red mug", free_form=True, language="de")

# As Inference Endpoints load the handler that they find in a model's folder.
sys.path.insert(0, again)
spec = importlib.util.spec_from_file_location("handler", again + "/handler.py")
handler = importlib.util.module_from_spec(spec)
spec.loader.exec_module(handler)
handler = handler.EndpointHandler(again)
with open(photo, "rb") as file:
    product = {"title": "blue dress", "image": base64.b64encode(file.read()).decode()}
found["handler"] = [handler({"inputs": inputs, "parameters": {"threshold": 0, "top_k": 3}})
                    for inputs in (product, "red mug", [product, {"image": "/etc/hostname"}])]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Of an untrained model without any part, of one with all, of a trained tagger, and of one that writes."""
    folder = tmp_path_factory.mktemp("saved")
    for name, tagger in (("trained", trained_tagger()), ("taught", writing_tagger())):
        ProductTaggingPipeline(tagger[0], processor=tagger[1]).save_pretrained(folder / name)
    return save(folder / "plain"), save(folder / "whole", *PARTS), folder / "trained", folder / "taught"


@pytest.fixture(scope="module")
def hub(folders, tmp_path_factory):
    """Holds these models, pushed with hf_tagger."""
    home = tmp_path_factory.mktemp("home")
    with FakeHub() as hub:
        pushed = run_python(PUSH, *folders, home / "both", **hub.env, HF_HOME=str(home), PYTHONPATH=os.getcwd())
        assert scores(pushed) == scores(pipeline("product-tagging", model=str(folders[2]))("red mug"))
        assert {"handler.py", "tag_tokenizer/tokenizer.json"} <= set(hub.repos["shop/whole"])
        wanted = {"config.json", "model.safetensors", "pipeline_tagger.py", "handler.py", "README.md"}
        assert wanted <= set(hub.repos["shop/trained"])
        assert "tag_tokenizer/tokenizer.json" in hub.repos["shop/taught"]
        yield hub


def scores(tags):
    return {tag["label"]: pytest.approx(tag["score"], abs=1e-5) for tag in tags}


def check_without_the_package(folders, hub, tmp_path, **environment):
    environment = {**hub.env, "HF_HOME": str(tmp_path), **environment}
    photo("Blue", "Dress").save(tmp_path / "dress.png")
    found = run_python(WITHOUT_THE_PACKAGE, *folders, tmp_path / "again", tmp_path / "dress.png", **environment)
    for folder, places in ((folders[0], (0, 2, 4)), (folders[1], (1, 3))):
        model = AutoModel.from_pretrained(folder)
        output = model(**AutoProcessor.from_pretrained(folder)(text=["red mug"]))
        expected = model.tag_scores(output.tag_logits, output.none_logits)[0].tolist()
        assert [found["scores"][place] for place in places] == [pytest.approx(expected, abs=1e-5)] * len(places)
    tagger = pipeline("product-tagging", model=str(folders[1]), device="cpu")
    options = {"threshold": 0, "free_form": True, "user_history": [{"label": "Blue", "attribute": "colour"}]}
    assert len(found["written"]) == 2 and found["written"][0] == found["written"][1]
    dress, mug, (dress_again, refused) = found["handler"]
    assert "base64" in refused["error"]
    product = tagger({"title": "blue dress", "image": tmp_path / "dress.png"}, threshold=0, top_k=3)
    for given, expected in ((found["whole"], tagger("red mug", **options)), (found["again"], found["whole"]),
                            (found["answer"], tagger("red mug", threshold=0)), (dress, product), (dress_again, product),
                            (mug, tagger("red mug", threshold=0, top_k=3))):
        assert [tag["label"] for tag in given] == [tag["label"] for tag in expected]
        assert [tag["score"] for tag in given] == pytest.approx([tag["score"] for tag in expected], abs=1e-5)
    assert code(tmp_path / "again") == code(folders[1])
    assert "this model has no decoder" in found["refused"].pop("free_form")
    assert all("pip install hf_tagger" in message for message in found["refused"].values()), found["refused"]
    trained, writer = (pipeline("product-tagging", model=str(folder)) for folder in folders[2:])
    expected = trained(["red mug", {"image": photo("Blue", "Dress")}])
    for result in found["trained"]:
        assert [scores(tags) for tags in result[:2]] == [scores(tags) for tags in expected]
        assert result[2]["error"].startswith("item 2: neither text nor a photo")
    expected = writer("red mug", free_form=True, language="de")
    assert [tag["label"] for tag in found["taught"]] == [tag["label"] for tag in expected]
    assert {tag["label"] for tag in found["taught"] if tag["source"] == "generated"} == {"rot", "Becher"}


def test_without_hf_tagger_a_folder_and_a_repository_do_all_that_their_model_has(folders, hub, tmp_path):
    check_without_the_package(folders, hub, tmp_path)


def test_so_they_do_with_the_lowest_transformers_that_is_allowed(folders, hub, tmp_path):
    needs = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    bounds = next(need.specifier for need in map(Requirement, needs) if need.name == "transformers")
    lowest = Version(next(bound.version for bound in bounds if bound.operator == ">="))
    if Version(transformers.__version__) == lowest:
        pytest.skip(f"transformers {lowest} is the one installed: the test above is this one")
    target = tmp_path / "packages"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", target]
    installed = subprocess.run([*pip, f"transformers=={lowest}"], capture_output=True, text=True, timeout=300)
    if installed.returncode:
        pytest.skip(f"transformers {lowest} cannot be had: {installed.stderr.strip().splitlines()[-1]}")
    check_without_the_package(folders, hub, tmp_path, PYTHONPATH=str(target))


def test_a_folder_with_a_critic_of_tag_sets_opens_and_says_that_it_is_gone(tmp_path):
    save(tmp_path)
    (tmp_path / "critic.safetensors").write_bytes(b"not read")
    stored = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    for used in (False, True):
        (tmp_path / "config.json").write_text(json.dumps(stored | {"critic": used}), encoding="utf-8")
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            tagger = pipeline("product-tagging", model=str(tmp_path))
        assert any("critic of tag sets" in str(warning.message) for warning in said) == used
        assert tagger("red mug", threshold=0) and not hasattr(tagger.model.config, "critic")
    with pytest.raises(TypeError, match="no option 'critic'. The critic .* leave it out"):
        tagger("red mug", critic=True)
    tagger.save_pretrained(tmp_path / "again")
    assert not (tmp_path / "again" / "critic.safetensors").exists()
