import pytest
import yaml
from accelerate.state import AcceleratorState

from hf_tagger.model.pipeline_tagger import ProductTaggingPipeline
from recipes import tag_catalog
from tests.shops import SCHEMA
from tests.tiny_tagger import trained_tagger


@pytest.fixture(scope="module")
def own_precision():
    """Precision is set once per process: a module's runs neither find nor leave one."""
    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)


@pytest.fixture(scope="session")
def tagger_folder(tmp_path_factory):
    """A trained tagger with the configuration of a catalogue of ids and titles."""
    folder = tmp_path_factory.mktemp("model") / "model"
    model, processor = trained_tagger()
    ProductTaggingPipeline(model, processor=processor).save_pretrained(folder)
    schema = {"id": "sku", "text": ["title"], "attributes": SCHEMA["attributes"]}
    config = {"catalog": {"source": {"path": "train.csv"}, "schema": schema}}
    (folder / "training_config.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture
def run_tag(tagger_folder, fresh_accelerate, capsys):
    """`hf_tagger tag` with this tagger, or another: exit status, and what is printed."""
    def run(*arguments, model=tagger_folder):
        status = tag_catalog.main(list(map(str, arguments if "--undo" in arguments else (model, *arguments))))
        return status, capsys.readouterr()

    return run
