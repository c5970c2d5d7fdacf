"""`TagRules` as `generate` of transformers takes them."""

import torch
from transformers import LogitsProcessor

from .generation_runtime import TagRules


class TagLogitsProcessor(LogitsProcessor):
    """Lets only those tokens through that `rules` allow, with their prior added.

    Args:
        prompt_length: tokens of the prompt, the start token included.
    """

    def __init__(self, prompt_length: int, rules: TagRules):
        self.prompt_length, self.rules = prompt_length, rules

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        chosen_by = self.rules.apply(scores.float().cpu().numpy(), input_ids[:, self.prompt_length:].tolist())
        return torch.from_numpy(chosen_by).to(scores)
