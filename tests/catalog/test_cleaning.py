"""Text and tags as a shop's export has them, and as the model should see them."""

import time

import pytest

from hf_tagger.model.text import clean_tag, clean_text


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [
        ("Nike Men Air Zoom Century Shoes", "Nike Men Air Zoom Century Shoes"),
        ("  Red \t dress\n", "Red dress"),
        ("SchÃ¶ne Schuhe", "Schöne Schuhe"),
        ("<p>Red dress</p><p>Size&nbsp;M</p>", "Red dress Size M"),
        ("H<sub>2</sub>O <b>bottle</b>", "H2O bottle"),
        ("&lt;p&gt;Caf&amp;eacute; mug&lt;/p&gt;", "Café mug"),
        ("<![CDATA[Red <i>shoe</i>]]>", "Red shoe"),
        ("Shirt<script>track('<p>')</script><style>p{}</style> blue", "Shirt blue"),
        ("Shirt<!-- hidden --> blue <img src='a>b.jpg' alt=x>", "Shirt blue"),
        ("<!DOCTYPE html><?xml version='1.0'?><p title=men's><i class=\"a>b\">Tee</i></p>", "Tee"),
        ("Size < 5 & > 3 <3 AT&T", "Size < 5 & > 3 <3 AT&T"),
        ("Ｆｕｌｌ　ｗｉｄｔｈ １２３", "Full width 123"),
        ("zero\u200bwidth \ufeffsoft\u00adhyphen \u202ebidi", "zerowidth softhyphen bidi"),
        ("control\x00char\x07 here", "control char here"),
        ("half \ud83d pair", "half pair"),
        ("红色连衣裙　夏季", "红色连衣裙 夏季"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("a\u200cb", "ab"),
    ],
)
def test_clean_text(dirty, clean):
    assert clean_text(dirty) == clean
    assert clean_text(clean) == clean, "cleaning twice changes nothing"


@pytest.mark.parametrize("nothing", ["", "  ", "---", "<br><br>", "\u200b\ufeff", "&nbsp;", "?!…", "<style>x</style>"])
def test_text_without_a_letter_or_digit_is_none(nothing):
    assert clean_text(nothing) is None


def test_over_long_text_is_cut_at_a_word():
    assert clean_text("red cotton shirt", max_chars=12) == "red cotton"
    assert clean_text("red cotton shirt", max_chars=10) == "red cotton"
    assert clean_text("红" * 30, max_chars=10) == "红" * 10
    assert len(clean_text("word " * 10_000)) <= 2000


@pytest.mark.parametrize(
    "piece", ["<", "<a ", "&#", "<!--", "&amp;", "<![", "<![CDATA[", "<a b='", '<a b="', "<a/", "<script>", "</", "é<"]
)
def test_hostile_markup_costs_no_time(piece):
    start = time.perf_counter()
    clean_text("Shirt <b>x</b>" + piece * 100_000)
    assert time.perf_counter() - start < 1


def test_tags_keep_what_looks_like_markup():
    assert clean_tag(" Black &amp; White ") == "Black & White"
    assert clean_tag("Size <M>") == "Size <M>"
    assert clean_tag("3/4\u00a0Sleeve") == "3/4 Sleeve"
    assert clean_tag(" \u200b ") is None


@pytest.mark.parametrize(("tag", "clean", "text"), [
    ("10½", "10½", "10 1⁄2"), ("Nike™", "Nike™", "Nike"), ("m²", "m²", "m2"), ("½", "½", "1⁄2"), ("№ 5", "№ 5", "No 5"),
    ("Ｗｏｍｅｎ", "Women", "Women"), ("Women’s", "Women's", "Women's"), ("Cafe\u0301", "Café", "Café"),
    ("Levi’s®", "Levi's®", "Levi's®"), ("SchÃ¶n", "Schön", "Schön"),
])  # fmt: skip
def test_repair_changes_no_meaning(tag, clean, text):
    assert clean_tag(tag) == clean == clean_tag(clean) and clean_text(tag) == text
