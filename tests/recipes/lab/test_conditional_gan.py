import pytest
import torch

from hf_tagger.augmentation.gan import condition
from hf_tagger.augmentation.retrain import AugmentationStopped
from hf_tagger.augmentation.settings import GanSettings
from hf_tagger.augmentation.tag_sets import TagSetSampler
from recipes.lab.conditional_gan import ProjectionCritic, gradient_penalty, train_gan
from tests.augmentation.gaussians import NAMES, SLICES, problem, world

SMALL = {"latent": 8, "hidden": 32, "learning_rate": 2e-3, "check_every": 100}


def random(seed=0):
    return torch.Generator().manual_seed(seed)


def trained(data, log=None, steps=300, gradient_weight=10.0, **settings):
    torch.manual_seed(0)
    sampler = TagSetSampler(data, [0, 1, 2], SLICES)
    ready = problem(data)
    loss = ready.loss(torch.ones(5), torch.ones(2))
    return train_gan(data, sampler, NAMES, GanSettings(**SMALL | settings),
                     lambda vectors, labels: loss(ready.settled(vectors), labels), random(), log=log, steps=steps,
                     gradient_weight=gradient_weight, classification=1.0)


@pytest.fixture(scope="module")
def gan():
    return trained(world())


def test_generated_vectors_stand_where_their_colour_does(gan):
    vectors, labels = gan.draw(300, random())
    colours = labels[:, :3].argmax(1)
    assert (vectors[:, :3].argmax(1) == colours).float().mean() > 0.8
    assert set(colours.tolist()) == {0, 1, 2}
    for colour in range(3):
        centre = vectors[colours == colour].mean(0)
        assert (centre - 2.0 * torch.eye(6)[colour]).norm() < 1.6, "the places are 2.8 apart"
    assert gan.stopped is None and len(gan.history) == 3


def test_generated_vectors_differ(gan):
    asked = torch.eye(5)[:1].repeat(100, 1)
    made = gan.generator(condition(asked, NAMES), torch.randn(100, 8, generator=random()))
    assert 0.05 < made.std(0).mean() < 0.6, "real ones scatter by 0.3"


def test_the_critic_stays_lipschitz(gan):
    assert gan.history[-1]["penalty"] < 0.3
    assert trained(world(), gradient_weight=0.0, steps=100).history[-1]["penalty"] > 0.3


def test_losses_are_logged(gan):
    logged = []
    trained(world(), log=lambda values, step: logged.append((step, set(values))), steps=100, check_every=50)
    assert [step for step, _ in logged] == [50, 100]
    assert logged[0][1] >= {"gan/wasserstein", "gan/generator", "gan/diversity"}


def test_the_same_seed_gives_the_same_generator():
    again, other = trained(world(), steps=20), trained(world(), steps=20)
    assert all(torch.equal(weight, same) for weight, same in
               zip(other.generator.state_dict().values(), again.generator.state_dict().values(), strict=True))


def test_the_gradient_penalty_is_that_of_the_slope():
    critic = ProjectionCritic(4, 2, 8)
    critic.forward = lambda vectors, conditions: 3 * vectors[:, 0]
    vectors, conditions = torch.randn(5, 4, generator=random()), torch.zeros(5, 2)
    assert gradient_penalty(critic, vectors, vectors, conditions, conditions, random()).item() == pytest.approx(4.0)


def test_divergence_before_any_good_state_leaves_nothing():
    with pytest.raises(AugmentationStopped, match="diverged at step"):
        trained(world(), learning_rate=1e12)


def test_a_collapsed_generator_stops_the_training():
    with pytest.raises(AugmentationStopped, match="mode collapse at step 60"):
        trained(world(), min_diversity=50.0, check_every=10)
