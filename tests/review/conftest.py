import pytest

pytest.importorskip("gradio", reason="the review page is an extra: pip install 'hf_tagger[review]'")

from hf_tagger.feedback.store import FeedbackStore  # noqa: E402
from hf_tagger.model.pipeline_tagger import ProductTaggingPipeline  # noqa: E402
from tests.review.shop import make_desk, write_shop  # noqa: E402
from tests.tiny_tagger import trained_tagger  # noqa: E402


@pytest.fixture(scope="session")
def tagger():
    model, processor = trained_tagger()
    return ProductTaggingPipeline(model, processor=processor)


@pytest.fixture
def desk(tagger, tmp_path):
    write_shop(tmp_path)
    with FeedbackStore(tmp_path / "feedback.db", tagger.model.config.attributes, patience=0.2) as store:
        yield make_desk(tagger, tmp_path, store)
