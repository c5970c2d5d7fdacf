"""An exported tagger for all tests that only run one: exporting takes a quarter of a minute."""

import pytest

from hf_tagger.deployment.export import export_tagger
from tests.deployment.test_export import bert_tagger


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    return export_tagger(*bert_tagger(), tmp_path_factory.mktemp("onnx"), "abc")
