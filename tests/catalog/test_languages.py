"""A rough count of the languages of texts."""

import pytest

from hf_tagger.catalog.guessing.languages import count_languages, language_of
from hf_tagger.catalog.synthetic.products import generate


@pytest.mark.parametrize(("text", "language"), [
    ("A light shirt for every day, made of linen and cotton", "en"),
    ("Ein leichtes Hemd für jeden Tag, aus Leinen und Baumwolle", "de"),
    ("Une chemise légère pour tous les jours, en lin", "fr"),
    ("Una camisa ligera para todos los días, de lino y algodón", "es"),
    ("Una camicia leggera per ogni giorno, di lino e di cotone", "it"),
    ("Een licht overhemd voor elke dag, van linnen", "nl"),
    ("Uma camisa leve para todos os dias, de linho e algodão", "pt"),
    ("毎日使える麻のシャツ", "ja"), ("适合每天穿的亚麻衬衫", "zh"), ("매일 입는 리넨 셔츠", "ko"),
    ("Лёгкая рубашка на каждый день", "ru"), ("Легка сорочка на кожен день, її колір синій", "uk"),
    ("Πουκάμισο για κάθε μέρα", "el"), ("قميص خفيف لكل يوم", "ar"), ("X-100 PRO", None), ("", None),
])  # fmt: skip
def test_language_of(text, language):
    assert language_of(text) == language


def test_descriptions_of_the_made_up_catalogue():
    rows = [row for row in generate(rows=600, picture_size=0, junk=0.0) if row["description"]]
    told = [(language_of(row["description"]), row["language"]) for row in rows]
    known = [(found, right) for found, right in told if found is not None]
    assert len(known) > 0.5 * len(told)
    assert sum(found == right for found, right in known) > 0.9 * len(known)
    assert sum(count_languages(row["description"] for row in rows).values()) == len(rows)
