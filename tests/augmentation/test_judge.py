import numpy as np
import torch

from hf_tagger.augmentation.judge import corrupted, train_judge
from tests.augmentation.gaussians import NAMES, SLICES, problem, world


def test_wrong_tags_are_plausible_ones_of_the_same_attribute():
    labels = torch.tensor([[1.0, 0, 0, -100, -100]] * 1000)
    scores = torch.tensor([[0.5, 0.4, 0.1, 0.5, 0.5]] * 1000)
    held = corrupted(labels, scores, SLICES, 0.5, torch.Generator().manual_seed(0))
    shares = held.float().mean(0)
    assert abs(shares[0] - 0.5) < 0.06 and abs(shares[1] - 0.4) < 0.06 and abs(shares[2] - 0.1) < 0.04
    assert (held[:, :3].sum(1) == 1).all() and not held[:, 3:].any(), "unknown tags are neither right nor wrong"


def test_the_judge_keeps_right_tags_and_drops_wrong_ones():
    data = world()
    critic = train_judge(data, SLICES, NAMES, problem(data).scores, seed=0, epochs=190, progress=False)
    vectors, labels = world(seed=1).batch(np.arange(100))
    right = labels[:, :3] == 1
    right = torch.cat([right, torch.zeros(100, 2, dtype=torch.bool)], dim=1)
    wrong = right[:, [1, 2, 0, 3, 4]]
    assert (critic.keep(vectors, right) & right).any(1).float().mean() > 0.9
    assert (critic.keep(vectors, wrong) & wrong).any(1).float().mean() < 0.1
