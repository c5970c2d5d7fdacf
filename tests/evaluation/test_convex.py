import pytest
import torch

from hf_tagger.evaluation.convex import minimise

MATRIX = torch.tensor([[4.0, 1.0], [1.0, 3.0]], dtype=torch.float64)
TARGET = torch.tensor([1.0, 2.0], dtype=torch.float64)


def quadratic(parameters):
    return parameters @ MATRIX @ parameters / 2 - TARGET @ parameters


def with_gradient(parameters):
    parameters = parameters.detach()
    return float(quadratic(parameters)), MATRIX @ parameters - TARGET


@pytest.mark.parametrize("loss", [quadratic, with_gradient])
@pytest.mark.parametrize("pull", [0.0, 0.7])
def test_a_quadratic_ends_where_its_gradient_is_zero(loss, pull):
    start = torch.tensor([5.0, -3.0], dtype=torch.float64)
    expected = torch.linalg.solve(MATRIX + 2 * pull * torch.eye(2), TARGET + 2 * pull * start)
    torch.testing.assert_close(minimise(loss, start, pull=pull), expected, atol=1e-4, rtol=0)
    assert start.tolist() == [5.0, -3.0] and not start.requires_grad


def test_separable_examples_stay_finite_where_they_are_pulled():
    x, y = torch.tensor([-1.0, 1.0]), torch.tensor([0.0, 1.0])

    def loss(slope):
        return torch.nn.functional.binary_cross_entropy_with_logits(slope * x, y)

    assert 0 < minimise(loss, torch.zeros(1), pull=0.5) < 1 < minimise(loss, torch.zeros(1))
