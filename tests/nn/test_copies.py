"""Copies of parts, by ``copy``, ``pickle``, ``torch.save`` and another process, compute what the parts compute."""

import copy
import io
import pickle

import pytest
import torch

import gcplib
from gcplib.models import Head
from gcplib.nn import (
    AveragePool,
    Coarse2Fine,
    D4Views,
    DiversificationBlock,
    create_gate,
    create_pool,
    get_loss,
    insert_gates,
    list_amplifiers,
    list_gates,
    list_losses,
    list_pools,
)


def by_torch(part):
    buffer = io.BytesIO()
    torch.save(part, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


WAYS = {"deepcopy": copy.deepcopy, "pickle": lambda part: pickle.loads(pickle.dumps(part)), "torch.save": by_torch}

POOLS = [(name, {}) for name in list_pools()] + [("mpn_cov", {"amplify": how}) for how in list_amplifiers()]
POOLS += [
    ("mpn_cov", {"exponent": 0.25}),
    ("mpn_cov", {"keep": "top(8)"}),
    ("mpn_cov", {"keep": "energy_random(0.5, 1)", "where": "backward"}),
    ("mpn_cov", {"rule": "taylor(9)"}),
    ("mpn_cov", {"rule": "pade_released"}),
    ("isqrt_cov", {"amplify": "exp_relative", "keep": "band(2, 6)"}),
    ("isqrt_cov", {"route": "products"}),
    ("gaussian", {"fn": "newton_schulz(3)"}),
    ("idccp", {"orthonormal": False}),
    ("idccp", {"projection": None, "steps": 3}),
]


def outcome(part, x):
    """Output and gradient."""
    x = x.clone().requires_grad_()
    out = part(x)
    out = out if isinstance(out, torch.Tensor) else torch.cat(out)
    return out, torch.autograd.grad(out.square().sum(), x)[0]


def assert_the_same(part, other, x):
    for got, want in zip(outcome(other, x), outcome(part, x), strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("name", "options"), POOLS, ids=str)
def test_pools(name, options, way):
    pool = create_pool(name, 16, reduction=12, **options).eval()
    other = WAYS[way](pool)
    assert repr(other) == repr(pool)
    assert_the_same(pool, other, torch.randn(2, 16, 5, 5))
    if hasattr(pool, "fn"):
        assert (other.fn, other.rule) == (pool.fn, pool.rule)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", list_gates())
def test_gates(kind, way):
    gate = create_gate(16, kind, start="paper").eval()
    assert_the_same(gate, WAYS[way](gate), torch.randn(2, 16, 8, 8))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", list_losses())
def test_losses(name, way):
    loss, logits, target = get_loss(name), torch.randn(4, 20), torch.arange(4)
    assert torch.equal(WAYS[way](loss)(logits, target), loss(logits, target))


def whole(name):
    torch.manual_seed(0)
    backbone = gcplib.create_backbone("test_resnet", pretrained=False)
    if name == "gated":
        insert_gates(backbone, ["layer2"], width=8)
    if name == "coarse2fine":
        return Coarse2Fine(backbone, Head(create_pool("mpn_cov", backbone.out_channels, reduction=8), 3), first=0)
    if name == "diversified":
        head = Head(AveragePool(backbone.out_channels), 3, gate="channel", diversify=DiversificationBlock())
        return gcplib.models.Model(backbone, head)
    model = gcplib.create_model(backbone, "idccp" if name == "views" else "mpn_cov", 3, reduction=16)
    return D4Views(model) if name == "views" else model


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["plain", "gated", "views", "diversified", "coarse2fine"])
def test_models(name, way):
    model = whole(name).eval()
    assert_the_same(model, WAYS[way](model), torch.randn(2, 3, 64, 64))


def test_gates_behind_a_stage_are_copied_with_their_hook():
    backbone = gcplib.create_backbone(pretrained=False).eval()
    (gate,) = insert_gates(backbone, ["blocks.4"], width=8)
    torch.nn.init.constant_(gate.rows.mix.bias, -1.0)
    x = torch.randn(1, 3, 64, 64)
    for way in WAYS.values():
        assert torch.equal(way(backbone)(x), backbone(x))


def _compute(rank, parts, results):
    torch.set_num_threads(1)
    for name, (part, *inputs) in parts.items():
        results[name] = part(*inputs).detach()


@pytest.mark.slow
def test_a_spawned_process_computes_the_same():
    x, images = torch.randn(2, 16, 5, 5), torch.randn(2, 3, 64, 64)
    parts = {str(entry): (create_pool(entry[0], 16, **entry[1]).eval(), x) for entry in POOLS}
    parts |= {kind: (create_gate(16, kind, start="paper").eval(), x) for kind in list_gates()}
    parts |= {name: (get_loss(name), torch.randn(4, 20), torch.arange(4)) for name in list_losses()}
    head = Head(create_pool("mpn_cov", 16, reduction=8, amplify="released"), 3, gate="concat")
    parts["head"] = (head.eval(), x)
    parts |= {f"model {name}": (whole(name).eval(), images) for name in ("gated", "views", "coarse2fine")}
    with torch.multiprocessing.get_context("spawn").Manager() as manager:
        results = manager.dict()
        torch.multiprocessing.spawn(_compute, (parts, results), nprocs=1)
        for name, (part, *inputs) in parts.items():
            assert torch.equal(results[name], part(*inputs)), name
