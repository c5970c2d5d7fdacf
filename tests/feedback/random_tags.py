"""A small catalogue of products as their tags, for shoppers to choose from."""

import numpy as np


def random_tags() -> np.ndarray:
    """One colour and one size each, bool [60, 10]."""
    rng = np.random.default_rng(0)
    tags = np.zeros((60, 10), bool)
    tags[np.arange(60), rng.integers(5, size=60)] = True
    tags[np.arange(60), 5 + rng.integers(5, size=60)] = True
    return tags
