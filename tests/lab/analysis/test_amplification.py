import pytest
import torch
from notebook_code import definitions

from gcplib.lab.analysis import spectra
from gcplib.linalg import newton_schulz_function
from gcplib.nn import create_pool, list_amplifiers

CODE = definitions("06")
DOUBLE = torch.float64
LAM = torch.tensor([[3.0, 1.0, 0.5, 0.1, 0.0], [0.4, 0.3, 0.2, 0.1, 0.05]], dtype=DOUBLE)


def test_output_eigenvalues_have_closed_forms():
    root, mean = LAM.sqrt(), LAM.mean(1, keepdim=True)
    wanted = {
        None: root,
        "exp": root * (1 + (-LAM).exp()),
        "exp_relative(2)": root * (1 + 2 * (-LAM / mean).exp()),
        "power(0.25)": mean.sqrt() * (LAM / mean) ** 0.25,
        "constant(3)": 4 * root,
        "released": root * CODE.released_factor(LAM).unsqueeze(1),
    }
    for how, want in wanted.items():
        torch.testing.assert_close(CODE.output_eigenvalues(LAM, how), want)
    torch.testing.assert_close(CODE.output_eigenvalues(LAM, fn="identity"), LAM)


@pytest.mark.parametrize("how", [None, *list_amplifiers()])
@pytest.mark.parametrize("pool", ["mpn_cov", "isqrt_cov"])
def test_output_eigenvalues_are_those_of_the_pool(pool, how):
    if pool == "isqrt_cov" and how in ("power(0.25)", "exp"):
        pytest.skip("one replaces the exact root, the other needs eigenvalues as they are")
    x = torch.randn(2, 6, 5, 5, dtype=DOUBLE)
    fn = "sqrt" if pool == "mpn_cov" else newton_schulz_function(5)
    made = create_pool(pool, 6, amplify=how).matrix(x.flatten(2))
    got = CODE.output_eigenvalues(spectra(x), how, fn)
    torch.testing.assert_close(torch.linalg.eigvalsh(made), got.sort(1).values)


def test_eigenvalues_stay_in_their_places():
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(
        CODE.output_eigenvalues(LAM[:, order], "exp"), CODE.output_eigenvalues(LAM, "exp")[:, order]
    )


def test_energy_fractions_in_closed_form():
    values = torch.tensor([[3.0, 2.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0, 1.0]])
    torch.testing.assert_close(CODE.energy_fractions(values, 2), torch.tensor([[14 / 16, 2 / 16], [0.6, 0.4]]))
    torch.testing.assert_close(CODE.energy_fractions(values, 5)[1], torch.full((5,), 0.2))
    assert CODE.energy_fractions(values, 1).tolist() == [[1.0], [1.0]]


def test_only_what_changes_proportions_changes_fractions():
    plain = CODE.energy_fractions(CODE.output_eigenvalues(LAM), 2)
    for how in ("released", "released_detached", "constant(3)"):
        torch.testing.assert_close(CODE.energy_fractions(CODE.output_eigenvalues(LAM, how), 2), plain)
    for how in ("exp", "exp_relative", "power(0.25)"):
        assert (CODE.energy_fractions(CODE.output_eigenvalues(LAM, how), 2)[:, 1] > plain[:, 1]).all()


def test_the_slope_of_the_factor_changes_sign_at_one_half():
    lam = LAM.clone().requires_grad_()
    (slope,) = torch.autograd.grad(CODE.released_factor(lam).sum(), lam)
    torch.testing.assert_close(CODE.released_factor_slope(LAM), slope)
    assert slope[0].sign().tolist() == [-1, -1, 0, 1, 1]
    assert (slope[1] > 0).all()


def test_every_layer_is_timed_in_every_round_after_one_untimed():
    passes = []

    class Layer(torch.nn.Module):
        def __init__(self, name):
            super().__init__()
            self.name, self.weight = name, torch.nn.Parameter(torch.ones(()))

        def forward(self, x):
            passes.append(self.name)
            return x * self.weight

    x, layers = torch.randn(2, 3), {name: Layer(name) for name in "ab"}
    found = CODE.pass_times(layers, x, rounds=3)
    assert "".join(passes) == "ab" * 4
    assert found.layer.tolist() == list("ab" * 3)
    assert found["round"].tolist() == [0, 0, 1, 1, 2, 2]
    assert (found[["forward", "backward"]] > 0).all(axis=None)
    assert not x.requires_grad
    assert all(layer.weight.grad is None for layer in layers.values())
