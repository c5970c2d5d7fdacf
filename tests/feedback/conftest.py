import pytest

from hf_tagger.feedback.store import FeedbackStore
from hf_tagger.feedback.verdicts import Verdict
from tests.tiny_tagger import ATTRIBUTES


@pytest.fixture
def store(tmp_path):
    with FeedbackStore(tmp_path / "feedback.db", ATTRIBUTES, patience=0.2) as store:
        yield store


@pytest.fixture
def say():
    def verdict(product="P1", tag="Red", decision="accept", reviewer="ana", attribute="colour", shown="f1", **more):
        return Verdict(product, shown, attribute, tag, decision, reviewer, "v1", **more)

    return verdict
