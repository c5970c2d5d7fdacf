"""Processes that write feedback."""

import os
import resource
from multiprocessing import get_context

from hf_tagger.feedback.store import FeedbackError, FeedbackStore
from hf_tagger.feedback.verdicts import Verdict


def write(url, reviewer, count, acknowledgements, at_once=1, file_bytes=None):
    """Stores verdicts, `at_once` by each call, and says so after each; what the store says instead ends it."""
    if file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    store = FeedbackStore(url)
    for start in range(0, count, at_once):
        products = [f"P{number}" for number in range(start, start + at_once)]
        try:
            store.add([Verdict(product, "f", "colour", "Red", "accept", reviewer, "1") for product in products])
        except FeedbackError as error:
            os.write(acknowledgements, f"{error}\n".encode())
            return
        os.write(acknowledgements, "".join(f"{reviewer} {product}\n" for product in products).encode())


class Writer:
    """A process that writes. Forked: importing everything anew would take most of the test's time."""

    def __init__(self, url, reviewer, count, **options):
        reading, writing = os.pipe()
        self.process = get_context("fork").Process(target=write, args=(url, reviewer, count, writing), kwargs=options)
        self.process.start()
        os.close(writing)
        self.lines = os.fdopen(reading)
