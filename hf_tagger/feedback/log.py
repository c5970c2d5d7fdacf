"""The verdicts of a store at hand, followed as they come, by whomever they are given."""

import threading
from collections import defaultdict
from collections.abc import Sequence

from hf_tagger.feedback.review_state import decided, latest
from hf_tagger.feedback.store import FeedbackStore
from hf_tagger.feedback.verdicts import Verdict

Standing = dict[tuple[str, str], dict[str, Verdict]]


class VerdictLog:
    """
    Args:
        attributes: of the model's config: a tag whose attribute was left open may have found one, see
            `review_state.decided`.
    """

    def __init__(self, store: FeedbackStore, attributes: Sequence[dict]):
        self.store, self.attributes = store, attributes
        self._lock, self._number = threading.Lock(), 0
        self._all: list[Verdict] = []
        self._of_product: dict[str, list[Verdict]] = defaultdict(list)
        self._by_reviewer: dict[str, list[Verdict]] = defaultdict(list)
        self._standing: dict[str, Standing] = {}

    def follow(self) -> None:
        """Takes in what was stored since. Raises FeedbackError where the store cannot be read."""
        with self._lock:
            new, self._number = self.store.verdicts_after(self._number)
            for verdict in decided(new, self.attributes):
                self._all.append(verdict)
                self._of_product[verdict.product].append(verdict)
                self._by_reviewer[verdict.reviewer].append(verdict)
                self._standing.pop(verdict.product, None)

    def all(self) -> list[Verdict]:
        return list(self._all)

    def by(self, reviewer: str) -> list[Verdict]:
        """Everything that one reviewer ever said, in order."""
        return list(self._by_reviewer.get(reviewer, ()))

    def products(self) -> list[str]:
        """Those that somebody said something about."""
        return list(self._of_product)

    def standing(self, product: str) -> Standing:
        """{(attribute, tag): {reviewer: the last verdict}} of a product; what was withdrawn is not there."""
        with self._lock:
            if product not in self._standing:
                said = latest(self._of_product.get(product, ()))
                self._standing[product] = {item[1:]: by_reviewer for item, by_reviewer in said.items()}
            return self._standing[product]
