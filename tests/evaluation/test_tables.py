from hf_tagger.evaluation.tables import text_table


def test_rows_stand_in_columns_under_their_keys():
    rows = {"colour": {"products": 1200, "recall": 0.81234}, "fit": {"products": 7}}
    assert text_table(rows).splitlines() == ["        products  recall",
                                             "colour      1200  0.8123",
                                             "fit            7       –"]  # fmt: skip
