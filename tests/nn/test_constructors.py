"""How parts are made: by name, class or object; on any device, in any dtype; and what they say of themselves."""

import inspect

import pytest
import timm.layers
import torch
from torch import nn

import gcplib
from gcplib import CovariancePool, create_pool, list_pools
from gcplib.linalg import get_eigenvalue_set, get_rule, list_rules, power
from gcplib.models import Head
from gcplib.nn import (
    Coarse2Fine,
    DiversificationBlock,
    StiefelProjection,
    UnknownOptionError,
    amplify,
    create_gate,
    get_loss,
    list_gates,
)
from gcplib.nn.base import Reduction
from gcplib.nn.coarse2fine import Attention, Decoder
from gcplib.nn.options import known_options
from gcplib.nn.registry import POOLS
from gcplib.nn.scaling_eigen import exp_relative

PLACES = {"device", "dtype"}


def named(module):
    return [*module.named_parameters(), *module.named_buffers()]


class Looking(nn.Module):
    """A backbone without timm."""

    out_channels = 6

    def __init__(self, device=None, dtype=None):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 4, stride=4, device=device, dtype=dtype)

    def forward(self, x):
        return self.conv(x)


def looking(**place):
    head = Head(create_pool("mpn_cov", 6, **place), 3, **place)
    return Coarse2Fine(Looking(**place), head, maps=2, first=0, **place)


# Everything with weights or buffers, made with device and dtype.
PARTS = {
    **{f"pool {name}": (lambda name=name, **place: create_pool(name, 16, reduction=8, **place)) for name in POOLS},
    **{f"gate {kind}": (lambda kind=kind, **place: create_gate(16, kind, **place)) for kind in list_gates()},
    "reduction": lambda **place: Reduction(16, (12, 8), groups=2, **place),
    "projection": lambda **place: StiefelProjection(16, 4, **place),
    "free projection": lambda **place: StiefelProjection(16, 4, orthonormal=False, **place),
    "attention": lambda **place: Attention(16, maps=4, **place),
    "decoder": lambda **place: Decoder(16, maps=4, **place),
    "diversification": lambda **place: DiversificationBlock(**place),
    "head": lambda **place: Head(create_pool("mpn_cov", 16, reduction=8, **place), 3, gate="channel", **place),
    "coarse2fine": looking,
}
CALLS = {name: (2, 16, 5, 5) for name in PARTS if name.startswith(("pool", "gate"))}
CALLS |= {"head": (2, 16, 5, 5), "coarse2fine": (2, 3, 20, 20), "projection": (2, 16, 9), "free projection": (2, 16, 9)}


def same(one, other, size):
    x = torch.randn(size)
    return torch.equal(one.eval()(x), other.eval()(x))


@pytest.mark.parametrize("name", PARTS)
def test_made_on_meta_it_computes_once_its_weights_are_loaded(name):
    real = PARTS[name]()
    with torch.device("meta"):
        by_context = PARTS[name]()
    for part in (by_context, PARTS[name](device="meta")):
        assert all(value.is_meta for _, value in named(part))
        part.to_empty(device="cpu").load_state_dict(real.state_dict())
        if name in CALLS:
            assert same(part, real, CALLS[name])


@pytest.mark.parametrize("name", PARTS)
def test_dtype_as_an_argument_and_as_the_default(name):
    parts = [PARTS[name](dtype=torch.float64)]
    torch.set_default_dtype(torch.float64)
    try:
        parts.append(PARTS[name]())
        if name in CALLS:
            assert parts[1](torch.randn(CALLS[name]))[0].dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    for part in parts:
        assert all(value.dtype == torch.float64 for _, value in named(part) if value.is_floating_point())


def test_another_default_device_draws_the_same_hashes():
    want = create_pool("cbp", 8, seed=3).bins
    with torch.device("meta"):
        assert create_pool("cbp", 8, seed=3).bins.is_meta
        assert torch.equal(create_pool("cbp", 8, seed=3, device="cpu").bins, want)


def test_a_whole_model_on_meta():
    torch.manual_seed(0)
    real = gcplib.create_model(gcplib.create_backbone("test_resnet", pretrained=False), "idccp", 3).eval()
    with torch.device("meta"):
        model = gcplib.create_model(gcplib.create_backbone("test_resnet", pretrained=False), "idccp", 3)
    model.to_empty(device="cpu").load_state_dict(real.state_dict())
    images = torch.randint(256, (2, 64, 64, 3), dtype=torch.uint8)
    x = model.backbone.prepare(images)
    assert torch.equal(x, real.backbone.prepare(images))
    assert torch.equal(model.eval()(x), real(x))


def test_all_options_are_keywords_in_one_order():
    shared = ["reduction", "reduction_groups", "device", "dtype"]
    for make in (create_pool, gcplib.create_model):
        kinds = [parameter.kind for parameter in inspect.signature(make).parameters.values()]
        assert kinds[-1] is inspect.Parameter.VAR_KEYWORD
    for name, make in POOLS.items():
        with pytest.raises(TypeError):
            make(8, 4)
        known = known_options(make)
        assert sorted(name for name in known if name in shared) == sorted(shared), name
        if name != "svd_top_n":  # which needs the reduction itself
            assert [name for name in known if name in shared] == shared
    for kind in list_gates():
        with pytest.raises(TypeError):
            create_gate(8, kind, 4)


@pytest.mark.parametrize("name", list_pools())
def test_an_unknown_option_of_a_pool_is_named_with_the_nearest_and_all_known(name):
    with pytest.raises(
        UnknownOptionError, match=rf"pool '{name}': unknown option 'reductoin'; did you mean 'reduction'"
    ):
        create_pool(name, 8, reductoin=4)
    with pytest.raises(ValueError, match=r"'colour'; .*known: .*reduction_groups.*; unknown option 'shape'"):
        create_pool(name, 8, colour=1, shape=2)


def test_an_option_that_a_pool_decides_itself_is_unknown():
    with pytest.raises(TypeError, match=r"pool 'isqrt_cov': unknown option 'fn'; .*known: steps, rule"):
        create_pool("isqrt_cov", 8, fn="sqrt")


def test_the_nearest_names():
    for make, near in (
        (lambda: create_pool("mpn_cof", 8), "mpn_cov"),
        (lambda: create_pool("mpn_cov", 8, rule="tailor"), "taylor"),
        (lambda: create_pool("mpn_cov", 8, fn="sqr"), "sqrt"),
        (lambda: create_pool("mpn_cov", 8, keep="tops(3)"), "top"),
        (lambda: create_pool("mpn_cov", 8, amplify="relesed"), "released"),
        (lambda: create_gate(8, "chanel"), "channel"),
        (lambda: get_loss("cross_entropie"), "cross_entropy"),
    ):
        with pytest.raises(ValueError, match=f"did you mean '{near}'"):
            make()


def test_objects_and_names_make_the_same():
    x = torch.randn(2, 8, 5, 5)
    for by_name, by_object in (
        ({"fn": "power(0.25)"}, {"fn": power(0.25)}),
        ({"exponent": 0.25}, {"fn": power(0.25)}),
        ({"rule": "taylor(9)"}, {"rule": get_rule("taylor(9)")}),
        ({"keep": "top(3)"}, {"keep": get_eigenvalue_set("top(3)")}),
        ({"amplify": "exp_relative(2)"}, {"amplify": exp_relative(2)}),
        ({"compute_dtype": "float64"}, {"compute_dtype": torch.float64}),
    ):
        one, other = create_pool("mpn_cov", 8, **by_name), create_pool(CovariancePool, 8, **by_object)
        assert (one.fn, one.rule) == (other.fn, other.rule)
        assert repr(one) == repr(other)
        assert torch.equal(one(x), other(x))


def test_a_pool_as_a_class_or_a_module():
    class Largest(nn.Module):
        def __init__(self, in_channels, power=1):
            super().__init__()
            self.in_channels = self.out_features = in_channels
            self.power = power

        def forward(self, x):
            return x.amax((2, 3)) ** self.power

    made = create_pool(Largest, 8, power=2)
    assert (made.out_features, made.power) == (8, 2)
    assert create_pool(made, 8) is made
    model = gcplib.create_model(gcplib.create_backbone("test_resnet", pretrained=False), Largest, 3)
    assert model(torch.randn(2, 3, 64, 64)).shape == (2, 3)
    with pytest.raises(ValueError, match="power: options of a pool by name or class; this one is already made"):
        create_pool(made, 8, power=3)
    with pytest.raises(ValueError, match="the pool Largest was made for 8 channels, the features have 9"):
        create_pool(made, 9)
    with pytest.raises(TypeError, match="a pool is a name, a class or a module, got int: 3"):
        create_pool(3, 8)


def test_a_gate_of_timm():
    gate = create_gate(8, timm.layers.SEModule, rd_channels=2)
    assert gate.fc1.out_channels == 2
    assert create_gate(8, gate) is gate


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mpn_cov", {"where": "nonsense"}, "unknown pass to truncate .nonsense.; known: both, forward, backward"),
        ("mpn_cov", {"where": "forward"}, "where='forward' says which passes are truncated, and needs keep"),
        ("isqrt_cov", {"where": "nonsense"}, "unknown pass to truncate"),
        ("mpn_cov", {"exponent": 0.25, "fn": "sqrt"}, "an exponent or a function, not both"),
        (
            "isqrt_cov",
            {"route": "products", "keep": "top(3)"},
            r"exact, top\(3\) both needs the eigenvalues",
        ),
        ("mpn_cov", {"keep": "top(9)"}, "needs 9 eigenvalues"),
        ("mpn_cov", {"rule": "clip", "route": "thin"}, "needs the full one"),
        ("mpn_cov", {"compute_dtype": torch.float16}, "unknown compute_dtype 'float16'"),
        ("mpn_cov", {"amplify": "power(0.25)", "fn": "pade"}, "replaces the exact square root"),
    ],
)
def test_wrong_combinations_fail_when_they_are_made(name, options, message):
    with pytest.raises(ValueError, match=message):
        create_pool(name, 8, **options)


def test_newton_schulz_takes_blocks_like_the_others():
    x = torch.randn(2, 12, 4, 5)
    for route in ("auto", "products", "full"):
        pool = create_pool("isqrt_cov", 12, blocks=3, route=route)
        parts = [create_pool("isqrt_cov", 4, route=route)(part) for part in x.split(4, dim=1)]
        torch.testing.assert_close(pool(x), torch.cat(parts, dim=1))


def test_repr_says_function_rule_and_route():
    pool = CovariancePool(112, reduction=64)
    assert repr(pool).splitlines()[1].strip() == "112, out_features=2080, fn=sqrt, rule=exact, route=auto"
    pool = create_pool("mpn_cov", 8, fn="power(0.25)", keep="top(3)", where="forward", compute_dtype="float64")
    shown = "fn=power(0.25), rule=exact, route=auto, keep=top(3), compute_dtype=float64, where=forward"
    assert pool.extra_repr() == f"8, out_features=36, {shown}"
    assert "amplify=exp_relative(2)" in repr(create_pool("mpn_cov", 8, amplify=exp_relative(2)))
    assert "fn=newton_schulz(5), rule=exact, route=products" in repr(create_pool("isqrt_cov", 8, route="products"))
    assert "rule=taylor(9)" in repr(create_pool("gaussian", 8, rule="taylor(9)"))
    for rule in list_rules():
        if rule != "top_n":
            assert f"rule={rule}, route=full" in repr(create_pool("mpn_cov", 8, rule=rule, route="full"))
    assert "k=15" in repr(get_loss("gce"))


def test_names_of_amplified_functions_can_be_read_again():
    for how in ("released", "exp", "exp_relative(2)", "power(0.25)", "released_detached", "constant(1)"):
        fn = amplify("sqrt", how, 8)
        assert fn.name == f"sqrt, {how}"
        assert fn == amplify("sqrt", fn.name.removeprefix("sqrt, "), 8)
        assert fn != amplify("sqrt", "exp_relative(3)", 8)
