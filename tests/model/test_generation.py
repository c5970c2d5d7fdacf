import random
import time

import numpy as np
import pytest
import torch
from transformers import LogitsProcessorList

from hf_tagger.model.decoder import TagLogitsProcessor
from hf_tagger.model.generation import TagPrior, TagRules, TagTrie, TagWriter, split_tags
from hf_tagger.model.saving import BOS, EOS, PAD, SEPARATOR

VOCABULARY, FIRST_CONTROL = 30, 27
DECODER = {"vocab_size": VOCABULARY, "languages": ["de"], "attributes": ["colour", "category"]}
# "ab", "abc", "abd", "e" and "fg": some tags begin others.
TAGS = [[5, 6], [5, 6, 7], [5, 6, 8], [9], [10, 11]]


def allowed(written, **options):
    processor = TagLogitsProcessor(1, TagRules(DECODER, **options))
    scores = processor(torch.tensor([[BOS, *written]]), torch.zeros(1, VOCABULARY))
    return set(torch.isfinite(scores[0]).nonzero()[:, 0].tolist())


def test_a_trie_finds_its_tags_and_nothing_else():
    trie = TagTrie(TAGS)
    assert [trie.find(tag) for tag in TAGS] == [0, 1, 2, 3, 4] and len(trie) == 5
    assert trie.find([5]) is None and trie.find([5, 6, 9]) is None and trie.find([]) is None
    assert len(TagTrie([[5], [5]])) == 1
    with pytest.raises(ValueError, match="tag 1 has no token"):
        TagTrie([[5], []])


def test_free_lists_hold_no_control_no_padding_and_no_empty_tag():
    words = set(range(5, FIRST_CONTROL))
    assert allowed([]) == words | {EOS}
    assert allowed([5]) == words | {EOS, SEPARATOR}
    assert allowed([5, SEPARATOR]) == words
    assert allowed([5, SEPARATOR, 6], max_tags=2) == words | {EOS}
    assert allowed([5], max_tags=2) == words | {EOS, SEPARATOR}


def test_a_trie_lets_only_unused_tags_through():
    options = {"trie": TagTrie(TAGS)}
    assert allowed([], **options) == {5, 9, 10, EOS}
    assert allowed([5], **options) == {6}
    assert allowed([5, 6], **options) == {7, 8, EOS, SEPARATOR}
    assert allowed([5, 6, SEPARATOR], **options) == {5, 9, 10}
    assert allowed([5, 6, SEPARATOR, 5, 6], **options) == {7, 8}, "the tag itself is used, longer ones are not"
    assert allowed([9, SEPARATOR], **options) == {5, 10}
    assert allowed([5, 6, 7, SEPARATOR, 5, 6, 8, SEPARATOR, 5, 6, SEPARATOR, 9, SEPARATOR, 10, 11], **options) == {EOS}
    assert allowed([9], max_tags=1, **options) == {EOS}


def log_prior(tokens, prior, written=(), product=0):
    """The sum of what a prior gives each of the tokens that go on from `written`, the last of which ends the tag."""
    total, written = 0.0, list(written)
    for token in tokens:
        following, shares, expected = prior.following(product, written)
        assert 0 < expected <= 1
        assert shares.sum() == pytest.approx(1.0)
        total += float(np.log(shares[following.tolist().index(token)]))
        written.append(token)
    return total


@pytest.mark.parametrize("end", [EOS, SEPARATOR])
def test_a_prior_adds_up_to_the_share_of_a_tag_among_those_not_yet_written(end):
    trie, probabilities = TagTrie(TAGS), np.array([[0.1, 0.2, 0.4, 0.3, 0.05], [0.5, 0.1, 0.1, 0.1, 0.2]])
    nothing = np.array([0.3, 1e-99])
    prior = TagPrior(trie, probabilities, np.log(nothing), without=np.log(1 - probabilities))

    def ends(*tags):
        none = nothing[0] / (1 - probabilities[0, list(tags)]).prod()
        return none if end == EOS else 1 - none

    for tag, belief in zip(range(5), probabilities[0], strict=True):
        share = 0.7 * belief / probabilities[0].sum() * ends(tag)
        assert log_prior([*TAGS[tag], end], prior) == pytest.approx(np.log(share))
    assert log_prior([EOS], prior) == pytest.approx(np.log(0.3))
    assert -40 < log_prior([EOS], prior, product=1) < -20, "unlikely, not impossible"
    # "abc" and "e" are written: what they held is gone.
    written, left = [*TAGS[1], SEPARATOR, *TAGS[3], SEPARATOR], [0.1, 0.4, 0.05]
    for tag, belief in zip((0, 2, 4), left, strict=True):
        share = belief / sum(left) * ends(1, 3, tag)
        assert log_prior([*TAGS[tag], end], prior, written) == pytest.approx(np.log(share))
    # So it is with a tag before them that is none of the trie's; within one, the prior says nothing.
    assert log_prior([*TAGS[0], end], prior, [12, 13, SEPARATOR, *written]) == pytest.approx(
        log_prior([*TAGS[0], end], prior, written))
    assert prior.following(0, [12]) is None and prior.following(0, [5, 6, 9]) is None


def test_where_a_written_tag_settles_its_attribute_the_list_ends():
    probabilities = np.array([[0.5, 0.3, 0.1, 0.05, 0.04]])
    one, many = (TagPrior(TagTrie(TAGS), probabilities, np.log([0.01]), np.log(without)) for without in
                 (np.full((1, 5), 0.01), 1 - probabilities))
    assert log_prior([*TAGS[0], EOS], one) > log_prior([*TAGS[0], SEPARATOR], one) + 10
    assert log_prior([*TAGS[0], EOS], many) < log_prior([*TAGS[0], SEPARATOR], many) - 3


class Writer(TagWriter):
    def _encode(self, labels):
        return [[5 + int(label)] for label in labels]


def test_a_list_goes_on_until_every_attribute_that_is_certain_has_its_tag():
    attributes = [{"name": f"a{number}", "kind": "single", "tags": [str(2 * number), str(2 * number + 1)]}
                  for number in range(7)]
    decoder = DECODER | {"attributes": [entry["name"] for entry in attributes], "aliases": {}}
    scores = np.tile(np.float32([1.0, 0.0]), 7)[None]
    prior, written = Writer(decoder, attributes)._rules(None, True, None, scores).prior, []
    for number in range(7):
        written += [5 + 2 * number]
        following, shares, _ = prior.following(0, written)
        ends, goes_on = (shares[following.tolist().index(token)] for token in (EOS, SEPARATOR))
        assert ends > 0.99 if number == 6 else goes_on > 0.99
        written += [SEPARATOR]


def a_prior():
    return TagPrior(TagTrie(TAGS), np.array([[0.0, 0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0]]),
                    nothing=np.full(2, -99.0), without=np.full((2, 5), -99.0))


def test_beams_share_the_prior_of_their_product_and_nothing_certain_is_infinite():
    for trie in (a_prior().trie, None):
        rules = TagRules(DECODER, trie=trie, prior=a_prior())
        scores = np.zeros((4, VOCABULARY), np.float32)
        chosen_by = rules.apply(scores, [[], [], [], [9, SEPARATOR]])
        assert chosen_by.argmax(1).tolist() == [9, 9, 10, 10] and not scores.any()
        finite = rules.apply(np.zeros((2, VOCABULARY), np.float32), [[5], [9]])
        assert np.isfinite(finite[0, 6]) and np.isfinite(finite[1, [EOS, SEPARATOR]]).all()
        finished = rules.apply(np.zeros((2, VOCABULARY), np.float32), [[9, EOS], [9, EOS]])
        assert np.ptp(finished) == 0, "what is finished is left alone"


def test_in_a_free_list_the_decoder_can_still_say_what_the_prior_does_not_know():
    rules, logits = TagRules(DECODER, prior=a_prior()), np.zeros((2, VOCABULARY), np.float32)
    logits[:, 20] = 9.0
    sure = rules.apply(logits, [[], []])
    assert sure[0, [9, 20]].argmax() == 0 and sure[0, 20] > np.log(0.49), "half of the decoder, half of the prior"
    # Within a tag that no attribute has, the decoder goes on alone.
    alone = TagRules(DECODER).apply(logits, [[20], [20]])
    assert (rules.apply(logits, [[20], [20]]) == alone).all()


@pytest.mark.parametrize("max_tags", [None, 2])
def test_whatever_is_sampled_under_a_trie_is_a_list_of_different_tags(max_tags):
    trie = TagTrie(TAGS)
    processor = LogitsProcessorList([TagLogitsProcessor(1, TagRules(DECODER, max_tags, trie))])
    torch.manual_seed(0)
    rows, lengths = torch.full((64, 1), BOS), set()
    for _ in range(24):
        scores = processor(rows, torch.randn(64, VOCABULARY) * 3)
        done = (rows == EOS).any(1)
        tokens = torch.multinomial(scores.softmax(-1), 1)[:, 0]
        rows = torch.cat([rows, torch.where(done, PAD, tokens)[:, None]], dim=1)
    for row in rows[:, 1:].tolist():
        assert EOS in row
        tags = [tag for tag in split_tags(row) if tag]
        assert all(tag in TAGS for tag in tags) and len({tuple(tag) for tag in tags}) == len(tags)
        lengths.add(len(tags))
    assert lengths == ({0, 1, 2} if max_tags else {0, 1, 2, 3, 4, 5})


def test_a_hundred_thousand_tags_build_in_seconds_and_cost_little_per_step():
    draw = random.Random(0)
    tags = list({tuple(draw.choices(range(5, 4000), k=draw.randint(1, 6))) for _ in range(100_000)})
    start = time.process_time()
    trie = TagTrie(tags)
    assert time.process_time() - start < 10 and len(trie) == len(tags)
    processor = TagLogitsProcessor(1, TagRules(DECODER | {"vocab_size": 4020}, trie=trie))
    written = [BOS, *tags[0], SEPARATOR, *tags[1], SEPARATOR]
    rows, scores = torch.tensor([written] * 32), torch.zeros(32, 4020)
    start = time.process_time()
    for _ in range(5):
        processor(rows, scores)
    assert (time.process_time() - start) / 5 < 0.1
