"""Checks the augmentation settings against the catalogue before training starts."""

from hf_tagger.augmentation.settings import AugmentationSettings
from hf_tagger.catalog.strict import ConfigError, did_you_mean


def check_augmentation(settings: AugmentationSettings, attributes: list[dict], fusion: str = "concat") -> None:
    """Raises ConfigError for an attribute that the vocabulary lacks, a tag without any training product, too few
    products, and a method that does not fit the catalogue or the model's fusion."""
    by_name = {attribute["name"]: attribute for attribute in attributes}
    if fusion == "late":
        raise ConfigError("augmentation works on pooled fused vectors, and with model.fusion: late there are none: "
                          "choose another fusion, or set augmentation to null")
    for name in settings.attributes:
        if name not in by_name:
            raise ConfigError(f"augmentation.attributes: there is no attribute {name!r}.{did_you_mean(name, by_name)}")
    if settings.method == "semi_supervised_gan" and all(attribute["kind"] == "multi" for attribute in attributes):
        raise ConfigError("augmentation.method semi_supervised_gan works through `single` attributes, and the "
                          "catalogue has none: choose another method")
    if settings.method == "pseudo_labels" and not any(attribute.get("unknown_count") for attribute in attributes):
        raise ConfigError("augmentation.method pseudo_labels learns from products with unknown attributes, and the "
                          "training split has none: choose another method (none: logit adjustment alone)")
    for name in settings.attributes or by_name:
        attribute = by_name[name]
        for tag, count in zip(attribute["tags"], attribute["counts"], strict=True):
            if not count:
                raise ConfigError(f"augmentation: no training product has the tag {tag!r} of {name!r}; leave it out of "
                                  f"catalog.schema.attributes.{name}.tags, or leave {name} out of "
                                  "augmentation.attributes")
        known = sum(attribute["counts"]) if attribute["kind"] == "single" else max(attribute["counts"], default=0)
        if known < settings.min_examples:
            raise ConfigError(f"augmentation: {known} training products have a tag of {name!r}, at least "
                              f"{settings.min_examples} are needed (augmentation.min_examples); leave {name} out of "
                              "augmentation.attributes, or set augmentation to null")
