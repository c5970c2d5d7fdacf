"""Settings of free-form tags: where a catalogue has them, and the decoder's training targets."""

from dataclasses import dataclass, field
from typing import Literal

from hf_tagger.catalog.attributes import AttributeSpec
from hf_tagger.catalog.strict import ConfigError


@dataclass
class FreeFormSpec:
    """Sources of free-form tags. The decoder can be asked for one of them by its name, like for an attribute."""

    columns: dict[str, AttributeSpec] = field(default_factory=dict)  # {name: how its tags are written}: sets of tags
    # Closed attributes whose tags are free-form tags too: "all", or their names.
    attributes: str | list[str] = field(default_factory=list)

    def __post_init__(self):
        if not self.columns and not self.attributes:
            raise ConfigError("free_form needs columns: {keywords: {format: delimited}, …} or attributes: all.")
        if isinstance(self.attributes, str) and self.attributes != "all":
            raise ConfigError(f'free_form.attributes is "all" or a list of names, got {self.attributes!r}.')
        for spec in self.columns.values():
            spec.kind = "multi"

    def takes(self, attribute: str) -> bool:
        """Whether a closed attribute's tags are free-form tags too."""
        return self.attributes == "all" or attribute in self.attributes


@dataclass
class TargetSettings:
    order: Literal["random", "sorted"] = "random"  # random: tags in a new order each time a product is seen
    attribute_prompt: float = 0.3  # share of products with a prompt for one attribute
    language_dropout: float = 0.1  # share of products without a language in the prompt

    def __post_init__(self):
        for name in ("attribute_prompt", "language_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is a share between 0 and 1, got {getattr(self, name)}.")
