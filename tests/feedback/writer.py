"""Stores verdicts one after the other, and says so after each: `python writer.py URL REVIEWER COUNT`."""

import sys

from hf_tagger.feedback.store import FeedbackStore
from hf_tagger.feedback.verdicts import Verdict

url, reviewer, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
store = FeedbackStore(url)
for number in range(count):
    store.add(Verdict(f"P{number}", "f", "colour", "Red", "accept", reviewer, "1"))
    print(f"{reviewer} P{number}", flush=True)
