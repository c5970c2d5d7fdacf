"""The verdicts of a store, held in memory and kept up to date with what other processes add."""

import threading
from collections import defaultdict
from collections.abc import Sequence

from hf_tagger.feedback.review_state import decided, latest
from hf_tagger.feedback.store import FeedbackStore
from hf_tagger.feedback.verdicts import Verdict

Standing = dict[tuple[str, str], dict[str, Verdict]]


class VerdictLog:
    """`attributes`: of the model's config, for verdicts whose attribute was left open (`review_state.decided`)."""

    def __init__(self, store: FeedbackStore, attributes: Sequence[dict]):
        self.store, self.attributes = store, attributes
        self._lock, self._number = threading.Lock(), 0
        self._all: list[Verdict] = []
        self._of_product: dict[str, list[Verdict]] = defaultdict(list)
        self._standing: dict[str, Standing] = {}

    def follow(self) -> None:
        """Reads what was stored since the last call. Raises FeedbackError if the store cannot be read."""
        with self._lock:
            new, self._number = self.store.verdicts_after(self._number)
            for verdict in decided(new, self.attributes):
                self._all.append(verdict)
                self._of_product[verdict.product].append(verdict)
                self._standing.pop(verdict.product, None)

    def all(self) -> list[Verdict]:
        return list(self._all)

    def products(self) -> list[str]:
        """Those with at least one verdict."""
        return list(self._of_product)

    def standing(self, product: str) -> Standing:
        """{(attribute, tag): {reviewer: the last verdict}} of a product, without withdrawn ones."""
        with self._lock:
            if product not in self._standing:
                said = latest(self._of_product.get(product, ()))
                self._standing[product] = {item[1:]: by_reviewer for item, by_reviewer in said.items()}
            return self._standing[product]
