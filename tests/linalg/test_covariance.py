import numpy as np
import pytest
import torch

from gcplib.linalg import center, covariance, gaussian_embedding, second_moment, triu_vector


@pytest.mark.parametrize("shape", [(5, 7), (3, 5, 7), (2, 3, 5, 7)])
def test_covariance_is_numpys(shape):
    x = torch.randn(shape, dtype=torch.float64)
    got = covariance(x).reshape(-1, 5, 5)
    want = [np.cov(one, bias=True) for one in x.reshape(-1, 5, 7).numpy()]
    np.testing.assert_allclose(got, np.stack(want), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("shape", [(5, 7), (2, 5, 3), (3, 5, 1)])
def test_covariance_gradient(shape):
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(covariance, x)


def test_covariance_ignores_the_mean_and_second_moment_does_not():
    x = torch.randn(4, 9, dtype=torch.float64)
    torch.testing.assert_close(covariance(x + 3), covariance(x))
    torch.testing.assert_close(second_moment(x), covariance(x) + x.mean(1, keepdim=True) @ x.mean(1, keepdim=True).T)


def test_gaussian_embedding_blocks():
    x = torch.randn(2, 3, 8, dtype=torch.float64)
    p, m = gaussian_embedding(x), x.mean(-1, keepdim=True)
    torch.testing.assert_close(p[:, :3, :3], covariance(x) + m @ m.mT)
    torch.testing.assert_close(p[:, :3, 3:], m)
    torch.testing.assert_close(p[:, 3:, 3:], torch.ones(2, 1, 1, dtype=torch.float64))


def test_triu_vector_order_is_frozen():
    s = torch.arange(16.0).view(1, 4, 4)
    assert triu_vector(s).tolist() == [[0, 1, 2, 3, 5, 6, 7, 10, 11, 15]]


def test_center_of_one_position_is_zero():
    assert center(torch.randn(3, 1)).abs().max() == 0


@pytest.mark.parametrize("shape", [(5,), (5, 0), (0, 5)])
def test_bad_shapes_are_named(shape):
    with pytest.raises(ValueError, match=r"features.*\(" + str(shape[0])):
        covariance(torch.zeros(shape))


def test_integers_are_refused():
    with pytest.raises(TypeError, match=r"int64.*\.float\(\)"):
        covariance(torch.ones(2, 2, dtype=torch.int64))


def test_triu_vector_of_a_rectangle_is_refused():
    with pytest.raises(ValueError, match=r"square.*\(2, 3\)"):
        triu_vector(torch.ones(2, 3))
