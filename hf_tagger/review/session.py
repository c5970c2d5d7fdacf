"""A reviewer's actions: look at products one after the other, judge and add tags, undo."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import wraps

from hf_tagger import UserError
from hf_tagger.feedback.log import VerdictLog
from hf_tagger.feedback.store import FeedbackStore
from hf_tagger.feedback.verdicts import UNDECIDED, Verdict
from hf_tagger.model.decisions import fold
from hf_tagger.model.text import clean_tag
from hf_tagger.review.predictions import CatalogPredictions, Product
from hf_tagger.review.queue import Filters, ReviewQueue

MAX_TAG = 200
SUGGESTED = 8


class ReviewError(UserError):
    """An action that is not possible; the message is for the reviewer."""


@dataclass
class Session:
    """Of one browser tab."""

    reviewer: str = ""
    filters: Filters = field(default_factory=Filters)
    # Rows of the products shown so far, and the position of the one in view among them.
    trail: list[int] = field(default_factory=list)
    place: int = -1
    shown: str = ""  # fingerprint of the product in view, as it was shown
    step: int = 0  # number of actions so far
    languages: list[str] = field(default_factory=list)  # choices of the language filter
    notice: str = ""  # about the last action: what is good
    trouble: str = ""  # and what is bad

    @property
    def row(self) -> int | None:
        return self.trail[self.place] if self.trail else None


def check_length(tag: str | None) -> None:
    """Raises ReviewError for nothing, and for what is too long to be a tag."""
    if not tag or len(tag) > MAX_TAG:
        raise ReviewError(f"Type a tag of at most {MAX_TAG} letters.")


def _action(method: Callable) -> Callable:
    """What a reviewer does: new verdicts are read first, and an error becomes the session's `trouble`."""
    @wraps(method)
    def act(self, session: Session, *arguments, **options) -> None:
        session.notice = session.trouble = ""
        session.step += 1
        try:
            self.log.follow()
            method(self, session, *arguments, **options)
        except (ValueError, UserError) as error:
            session.trouble = str(error)

    return act


class ReviewDesk:
    """Predictions, store and queue, shared by all sessions. Each action leaves its message in the session; nothing is
    shown as stored that was not."""

    def __init__(self, predictions: CatalogPredictions, store: FeedbackStore, queue: ReviewQueue, log: VerdictLog,
                 model_version: str):
        self.predictions, self.store, self.queue, self.log = predictions, store, queue, log
        self.model_version = model_version
        self.attributes = predictions.attributes
        self._columns = {(entry["name"], tag): column for column, (entry, tag) in enumerate(
            (entry, tag) for entry in self.attributes for tag in entry["tags"])}
        self._kinds = {entry["name"]: entry["kind"] for entry in self.attributes}
        self._folded: dict[str, list[tuple[str, str]]] = {}
        for attribute, tag in self._columns:
            self._folded.setdefault(fold(tag), []).append((attribute, tag))

    def product(self, session: Session) -> Product | None:
        return None if session.row is None else self.predictions.products[session.row]

    @_action
    def open(self, session: Session, product: str | None = None) -> None:
        """Starts with a product of this id, if there is one, else with the next of the queue."""
        session.trail, session.place = [], -1
        if product in self.predictions.row_of:
            self._show(session, self.predictions.row_of[product])
        else:
            self._forward(session)

    @_action
    def next(self, session: Session) -> None:
        self._forward(session)

    @_action
    def back(self, session: Session) -> None:
        if session.place < 1:
            raise ReviewError("This is the first product that you have seen.")
        session.place -= 1
        self._shown(session)

    @_action
    def judge(self, session: Session, product: str, attribute: str, tag: str, decision: str) -> None:
        """decision: accept, reject or unsure; the same one again withdraws it. product: id of the one in view."""
        self._check(session, product)
        if (attribute, tag) not in self._columns:
            check_length(tag)
        mine = self._mine(session, attribute, tag)
        score = self._score(session, attribute, tag)
        predicted = self._predicted(session, attribute, tag)
        wanted = "add" if decision == "accept" and not predicted else decision
        if mine is not None and mine.decision == wanted and mine.fingerprint == session.shown:
            wanted = "withdraw"
        self._store(session, [(attribute, tag, wanted, score), *self._instead(session, attribute, tag, wanted)])

    @_action
    def add(self, session: Session, product: str, tag: str, attribute: str | None = None) -> None:
        """Adds a tag that the product lacks. Without an attribute, the one that has the tag is taken. A tag that no
        attribute has is a proposed one, its attribute `UNDECIDED` unless given."""
        self._check(session, product)
        label = clean_tag(tag or "")
        check_length(label)
        owners = [(name, known) for name, known in self._folded.get(fold(label), ())
                  if attribute in (None, UNDECIDED, name)]
        if len(owners) > 1 and attribute is None:
            listed = ", ".join(name for name, _ in owners)
            raise ReviewError(f"{label} is a tag of {listed}: choose one from the list.")
        name, known = owners[0] if len(owners) == 1 else (attribute or UNDECIDED, label)
        decision = "accept" if self._predicted(session, name, known) else "add"
        self._store(session, [(name, known, decision, self._score(session, name, known)),
                              *self._instead(session, name, known, decision)])
        if (name, known) not in self._columns and name != UNDECIDED or not owners:
            session.notice = f"{known} is a proposed tag now: approve it under “New tags”."

    @_action
    def accept_rest(self, session: Session, product: str) -> None:
        """Accepts every predicted tag that this reviewer has not judged, and goes to the next product."""
        self._check(session, product)
        rest = [(attribute, tag, "accept", self._score(session, attribute, tag))
                for attribute, tag in self.chosen(session.row, session.filters.attribute)
                if not self._is_fresh(session, self._mine(session, attribute, tag))]
        if rest:
            self._store(session, rest)
        self._forward(session)

    @_action
    def undo(self, session: Session) -> None:
        """Withdraws this reviewer's last verdicts, all of the same moment; the ones before them count again. Nothing is
        deleted: further verdicts are added."""
        standing: dict[tuple, list[tuple[int, Verdict]]] = {}
        mine = (verdict for verdict in self.log.all() if verdict.reviewer == session.reviewer)
        for number, verdict in enumerate(mine):
            if verdict.decision == "withdraw":
                standing.pop(verdict.item, None)
            else:
                standing.setdefault(verdict.item, []).append((number, verdict))
        if not standing:
            raise ReviewError("There is nothing to take back.")
        _, last = max((said[-1] for said in standing.values()), key=lambda one: one[0])
        together = [said for said in standing.values() if said[-1][1].at == last.at]
        now = {"at": datetime.now(UTC)}
        new = [_again(said[-1][1], decision="withdraw", **now) for said in together]
        new += [_again(said[-2][1], **now) for said in together if len(said) > 1]
        self.store.add(new)
        self.log.follow()
        row = self.predictions.row_of.get(last.product)
        if row is not None and row != session.row:
            self._show(session, row)
        session.notice = "Taken back: " + ", ".join(said[-1][1].tag for said in together) + "."

    def suggest(self, text: str) -> list[tuple[str, str, bool]]:
        """(tag, attribute, whether the model has it) for a text that is being typed: tags that start with it, then tags
        with a word that does, then others that contain it, then the text itself as a new tag."""
        typed = fold(text)
        if not typed:
            return []
        ranked = []
        for folded, owners in self._folded.items():
            if typed in folded:
                rank = 0 if folded == typed else 1 if folded.startswith(typed) else 2 if f" {typed}" in folded else 3
                ranked += [(rank, folded, tag, name) for name, tag in owners]
        found = [(tag, name, True) for _, _, tag, name in sorted(ranked)[:SUGGESTED]]
        if any(fold(tag) == typed for tag, _, _ in found):
            return found
        label, names = clean_tag(text), [entry["name"] for entry in self.attributes]
        return found + [(label, name, False) for name in (*names, *[UNDECIDED] * (len(names) > 1))]

    def chosen(self, row: int, attribute: str | None = None) -> list[tuple[str, str]]:
        """(attribute, tag) of the tags that the model gives a product."""
        chosen = self.predictions.of(row).chosen
        return [item for item, column in self._columns.items() if chosen[column] and attribute in (None, item[0])]

    def _check(self, session: Session, product: str) -> None:
        """Keys may be faster than pages: nobody judges a product that they have not seen."""
        if self.product(session) is None or self.product(session).id != product:
            raise ReviewError("The page had moved on to another product: your last key was not counted.")

    def _forward(self, session: Session) -> None:
        if session.place + 1 < len(session.trail):
            session.place += 1
            self._shown(session)
            return
        row = self.queue.next(session.reviewer, session.filters, set(session.trail))
        if row is None:  # back to the products that were skipped
            row = self.queue.next(session.reviewer, session.filters, {session.row})
        if row is not None:
            self._show(session, row)
        elif session.trail:
            raise ReviewError("No further product passes these filters" + (
                "." if self.predictions.finished else " yet: the model is still reading the catalogue."))

    def _show(self, session: Session, row: int) -> None:
        session.trail = [*session.trail[:session.place + 1], row]
        session.place = len(session.trail) - 1
        self._shown(session)

    def _shown(self, session: Session) -> None:
        session.shown = self.queue.look(session.row)

    def _store(self, session: Session, new: list[tuple[str, str, str, float | None]]) -> None:
        """Stores (attribute, tag, decision, score) of the product in view, all with the same time."""
        if not session.reviewer:
            raise ReviewError("Say who you are first: type your name above. Nothing was stored.")
        product = self.product(session)
        if product is None:
            raise ReviewError("There is no product to judge yet.")
        now = datetime.now(UTC)
        self.store.add([
            Verdict(product.id, session.shown, attribute, tag, decision, session.reviewer, self.model_version,
                    score, now) for attribute, tag, decision, score in new])
        self.log.follow()
        if self.queue.look(session.row) != session.shown:
            self._shown(session)
            session.notice = ("This product has changed since you were shown it: what you said is kept, and marked "
                              "stale. Look at it again.")

    def _instead(self, session: Session, attribute: str, tag: str, decision: str) -> list[tuple]:
        """Rejects the tags that a new tag of a `single` attribute rules out: the predicted one and those that the
        reviewer gave before."""
        if decision not in ("accept", "add") or self._kinds.get(attribute) != "single":
            return []
        standing = self.log.standing(self.product(session).id)
        said = {other: by_reviewer[session.reviewer].decision for (name, other), by_reviewer in standing.items()
                if name == attribute and self._is_fresh(session, by_reviewer.get(session.reviewer))}
        others = {other for _, other in self.chosen(session.row, attribute)} | {
            other for other, decided in said.items() if decided in ("accept", "add")}
        return [(attribute, other, "reject", self._score(session, attribute, other))
                for other in sorted(others - {tag}) if said.get(other) != "reject"]

    def _mine(self, session: Session, attribute: str, tag: str) -> Verdict | None:
        return self.log.standing(self.product(session).id).get((attribute, tag), {}).get(session.reviewer)

    def _is_fresh(self, session: Session, verdict: Verdict | None) -> bool:
        return verdict is not None and verdict.fingerprint == session.shown

    def _predicted(self, session: Session, attribute: str, tag: str) -> bool:
        column = self._columns.get((attribute, tag))
        return column is not None and bool(self.predictions.of(session.row).chosen[column])

    def _score(self, session: Session, attribute: str, tag: str) -> float | None:
        column = self._columns.get((attribute, tag))
        return None if column is None else round(float(self.predictions.of(session.row).scores[column]), 6)


def _again(verdict: Verdict, **changes) -> Verdict:
    """A copy as a new verdict."""
    return Verdict(**{name: value for name, value in vars(verdict).items() if name != "key"} | changes)
