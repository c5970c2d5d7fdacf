"""The decoder's training targets: a product's set of free-form tags, in a new order each time."""

import random
from collections.abc import Callable

from hf_tagger.catalog.free_form import TargetSettings
from hf_tagger.model.configuration_tagger import TaggerConfig
from hf_tagger.model.saving import EOS, SEPARATOR, control_id

FreeForm = dict[str, list[str] | None]


class TargetEncoder:
    """(free-form tags, language) of a record -> token ids of one `labels` row, None where nothing is known.

    A row: the control tokens of language and attribute, the tags with separators between them, the end token. For an
    empty set of tags, the end token follows at once. Tags that do not fit into `max_length` are left out.
    """

    def __init__(self, tag_tokenizer, config: TaggerConfig, settings: TargetSettings | None = None):
        self.tokenizer, self.config, self.settings = tag_tokenizer, config, settings or TargetSettings()
        self._pieces: dict[str, list[int]] = {}

    def __call__(self, free_form: FreeForm, language: str | None,
                 draw: random.Random | None = None) -> list[int] | None:
        draw, settings = draw or random, self.settings
        known = {name: tags for name, tags in free_form.items() if tags is not None}
        if not known:
            return None
        prompt = []
        if language in self.config.decoder["languages"] and draw.random() >= settings.language_dropout:
            prompt.append(control_id(self.config.decoder, language=language))
        if draw.random() < settings.attribute_prompt:
            name = draw.choice(sorted(known))
            if name in self.config.decoder["attributes"]:
                prompt.append(control_id(self.config.decoder, attribute=name))
                known = {name: known[name]}
        tags = sorted({tag for given in known.values() for tag in given})
        if settings.order == "random":
            draw.shuffle(tags)
        return self.row(prompt, tags)

    def row(self, prompt: list[int], tags: list[str]) -> list[int]:
        ids, room = list(prompt), self.config.decoder["max_length"]
        for tag in tags:
            pieces = self.pieces(tag)
            if len(ids) + len(pieces) + 2 > room:
                break
            ids += ([SEPARATOR] if len(ids) > len(prompt) else []) + pieces
        return [*ids, EOS]

    def pieces(self, tag: str) -> list[int]:
        if tag not in self._pieces:
            if len(self._pieces) > 100_000:
                self._pieces.clear()
            self._pieces[tag] = self.tokenizer(tag, add_special_tokens=False)["input_ids"]
        return self._pieces[tag]


TargetFunction = Callable[[FreeForm, str | None], list[int] | None]
