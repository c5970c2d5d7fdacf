import copy

import pytest

from hf_tagger.augmentation.checks import check_augmentation
from hf_tagger.augmentation.settings import AugmentationSettings
from hf_tagger.catalog.strict import ConfigError, build
from tests.augmentation.gaussians import ATTRIBUTES


def check(vocabulary=ATTRIBUTES, **settings):
    check_augmentation(build(AugmentationSettings, settings), vocabulary)


def test_what_can_be_worked_with_passes():
    check(method="semi_supervised_gan", attributes=["colour"], logit_adjustment_tau=0.5)


def test_an_unknown_attribute_names_the_nearest():
    with pytest.raises(ConfigError, match="no attribute 'color'. Did you mean \"colour\""):
        check(attributes=["color"])


def test_a_tag_without_products_is_named():
    attributes = copy.deepcopy(ATTRIBUTES)
    attributes[0]["counts"][2] = 0
    with pytest.raises(ConfigError, match="no training product has the tag 'Sage' of 'colour'"):
        check(attributes)
    check(attributes, attributes=["features"])


def test_too_few_products_name_the_minimum():
    with pytest.raises(ConfigError, match="100 training products have a tag of 'colour', at least 500 are needed"):
        check(min_examples=500)


def test_pseudo_labels_need_products_with_unknown_attributes():
    with pytest.raises(ConfigError, match="learns from products with unknown attributes"):
        check(method="pseudo_labels")
    check([ATTRIBUTES[0] | {"unknown_count": 3}], method="pseudo_labels")


def test_late_fusion_has_no_pooled_vectors():
    with pytest.raises(ConfigError, match="fusion: late"):
        check_augmentation(AugmentationSettings(), ATTRIBUTES, fusion="late")


def test_a_semi_supervised_gan_needs_a_single_attribute():
    with pytest.raises(ConfigError, match="works through `single` attributes"):
        check(ATTRIBUTES[1:], method="semi_supervised_gan")


def test_an_unknown_method_is_an_error():
    with pytest.raises(ConfigError, match="method"):
        check(method="vae")
