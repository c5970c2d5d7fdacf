"""The page's parts as HTML: a product, its tags with their verdicts, progress, proposed tags."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np

from hf_tagger.evaluation.pages import embedded_photo, templates
from hf_tagger.feedback.agreement import agreement
from hf_tagger.feedback.proposals import proposals
from hf_tagger.feedback.store import FeedbackError
from hf_tagger.feedback.verdicts import UNDECIDED
from hf_tagger.model.decisions import attribute_slices
from hf_tagger.review.reasons import reasons
from hf_tagger.review.session import ReviewDesk, Session

PHOTO_SIDE, PHOTOS = 720, 4
CANDIDATES, LEAST = 2, 0.05
OPEN = ("disputed", "stale")  # filters under which all verdicts are shown
SAID = {"accept": "yes", "add": "yes", "reject": "no", "unsure": "unsure"}

_environment = templates(Path(__file__).parent)


@dataclass
class Chip:
    """A tag on the card."""

    attribute: str
    label: str
    score: float | None
    predicted: bool  # by the model
    given: bool  # in the catalogue
    proposed: bool  # not in the model's vocabulary
    number: int = 0  # from 1
    mine: str = ""  # the reviewer's decision, "" for none
    stale: bool = False  # made before the product changed
    others: dict[str, list[str]] = field(default_factory=dict)  # {decision: [reviewers]}


def product_view(desk: ReviewDesk, session: Session) -> str:
    product = desk.product(session)
    if product is None:
        return _render("product.html.jinja", product=None, waiting=not desk.predictions.finished,
                       error=desk.predictions.error)
    photos = [embedded_photo([image], PHOTO_SIDE, desk.predictions.allow_urls) for image in product.images[:PHOTOS]]
    return _render("product.html.jinja", product=product, photos=[photo for photo in photos if photo],
                   unreadable=photos.count(None))


def card_view(desk: ReviewDesk, session: Session) -> str:
    product = desk.product(session)
    if product is None:
        return _render("card.html.jinja", product=None, step=session.step)
    prediction = desk.predictions.of(session.row)
    chips = chips_of(desk, session)
    why = reasons(desk.attributes, prediction)
    groups = {entry["name"]: [] for entry in desk.attributes if session.filters.attribute in (None, entry["name"])}
    for chip in chips:
        groups.setdefault(chip.attribute, []).append(chip)
    return _render("card.html.jinja", product=product, step=session.step, groups=groups, why=why,
                   error=prediction.error, undecided=UNDECIDED)


def chips_of(desk: ReviewDesk, session: Session) -> list[Chip]:
    """Of the attributes to review: predicted tags, the catalogue's own, tags with verdicts, the likeliest others."""
    product, prediction = desk.product(session), desk.predictions.of(session.row)
    standing = desk.log.standing(product.id)
    chips = []
    for entry, where in zip(desk.attributes, attribute_slices(desk.attributes), strict=True):
        name = entry["name"]
        if session.filters.attribute not in (None, name):
            continue
        scores = dict(zip(entry["tags"], prediction.scores[where].tolist(), strict=True))
        predicted = [entry["tags"][tag] for tag in np.flatnonzero(prediction.chosen[where])]
        given = product.given.get(name) or []
        judged = [tag for (attribute, tag), said in standing.items() if attribute == name and (
            session.reviewer in said or session.filters.show in OPEN)]
        shown = list(dict.fromkeys([*sorted(predicted, key=lambda tag: -scores[tag]), *given, *judged]))
        rest = [tag for tag in scores if tag not in shown and scores[tag] >= LEAST]
        for tag in shown + sorted(rest, key=lambda tag: -scores[tag])[:CANDIDATES]:
            chips.append(Chip(name, tag, scores.get(tag), tag in predicted, tag in given, tag not in scores))
    chips += [Chip(UNDECIDED, tag, None, False, False, True) for attribute, tag in standing if attribute == UNDECIDED]
    for number, chip in enumerate(chips, 1):
        chip.number = number
        said = dict(standing.get((chip.attribute, chip.label), {}))
        if (mine := said.pop(session.reviewer, None)) is not None:
            chip.mine, chip.stale = mine.decision, not desk.queue.is_fresh(session.row, mine)
        # Others' verdicts appear after one's own only: reviewers who copy would inflate the agreement.
        if mine is not None or session.filters.show in OPEN:
            for reviewer, verdict in said.items():
                fresh = desk.queue.is_fresh(session.row, verdict)
                chip.others.setdefault(SAID[verdict.decision] if fresh else "stale", []).append(reviewer)
    return chips


def bar_view(desk: ReviewDesk, session: Session) -> str:
    """How far this reviewer is, and messages."""
    judged, total = desk.queue.progress(session.reviewer, session.filters)
    return _render("bar.html.jinja", judged=judged, total=total, session=session, predictions=desk.predictions)


def progress_view(desk: ReviewDesk) -> str:
    """How much each reviewer has judged, and their agreement."""
    try:
        desk.log.follow()
    except FeedbackError as error:
        return _render("progress.html.jinja", trouble=str(error))
    verdicts = desk.log.all()
    standing = [said for product in desk.log.products() for by_reviewer in desk.log.standing(product).values()
                for said in by_reviewer.values()]
    reviewers = {}
    for verdict in standing:
        products, counts = reviewers.setdefault(verdict.reviewer, (set(), {}))
        products.add(verdict.product)
        counts[verdict.decision] = counts.get(verdict.decision, 0) + 1
    overall = agreement(verdicts)
    by_attribute = [(entry["name"], agreement(verdicts, entry["name"])) for entry in desk.attributes if overall]
    return _render("progress.html.jinja", trouble="", reviewers=sorted(reviewers.items()), overall=overall,
                   by_attribute=by_attribute, store=desk.store.url)


def proposals_view(desk: ReviewDesk, trouble: str = "") -> str:
    found = []
    try:
        found = proposals(desk.store, desk.attributes)
    except FeedbackError as error:
        trouble = str(error)
    return _render("proposals.html.jinja", proposals=found, trouble=trouble,
                   attributes=[entry["name"] for entry in desk.attributes], undecided=UNDECIDED)


def tags_view(attributes: Sequence[dict], tags: Sequence[dict], heard: str = "", trouble: str = "") -> str:
    """The pipeline's output for one product, by attribute, generated tags last."""
    places = {entry["name"]: place for place, entry in enumerate(attributes)}
    ordered = sorted(tags, key=lambda tag: (tag["source"] != "vocabulary", places.get(tag["attribute"], -1)))
    groups = [(source == "vocabulary", attribute, list(group)) for (source, attribute), group in
              groupby(ordered, key=lambda tag: (tag["source"], tag["attribute"] or ""))]
    return _render("tags.html.jinja", groups=groups, heard=heard, trouble=trouble)


def _render(template: str, **values) -> str:
    return _environment.get_template(template).render(**values)
