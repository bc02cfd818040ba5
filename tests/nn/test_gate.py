import copy

import pytest
import torch
from timm.layers import SEModule
from timm.models.resnet import BasicBlock, Bottleneck
from torch import nn

import gcplib
from gcplib.lab.training import Recipe
from gcplib.lab.training.state import make_optimizer
from gcplib.models import Backbone, Head, Model, create_network
from gcplib.nn.gate import (
    ChannelGate,
    FusedGate,
    Gate,
    PositionGate,
    SqueezeExcitation,
    create_gate,
    equal_width,
    insert_gates,
    list_gates,
)

DOUBLE = torch.float64
SMALL = {"width": 4, "grid": 3}


def small(kind, channels=6, **options):
    """A gate with sizes for tests, of the options that its kind has."""
    has = {"channel": ("width",), "se": ()}.get(kind, ("width", "grid"))
    return create_gate(channels, kind, **{key: SMALL[key] for key in has}, **options)


def shake(module):
    """Weights and statistics as after some training, so that nothing is zero or one by luck."""
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        if value.is_floating_point():
            value.data = torch.rand_like(value) + 0.5 if "var" in name else torch.randn_like(value)
    return module


def row_wise(rows, matrix, between):
    """Batch norm over rows, row-wise convolution, a linear map, by definition."""
    b = rows.norm
    m = (matrix - b.running_mean[:, None]) / (b.running_var[:, None] + b.eps).sqrt() * b.weight[:, None]
    m = m + b.bias[:, None]
    # As published: a grouped convolution whose kernels are as high as the matrix.
    out = nn.functional.conv2d(m[None, :, :, None], rows.weight[:, None, :, None], rows.bias, groups=len(m)).flatten()
    return rows.mix.weight @ between(out) + rows.mix.bias


@pytest.mark.parametrize("start", ["identity", "paper"])
def test_channel_gate_by_definition(start):
    gate = shake(ChannelGate(6, width=4, start=start).double()).eval()
    x = torch.randn(3, 6, 5, 4, dtype=DOUBLE)
    for image, got in zip(x, gate.factors(x), strict=True):
        reduced = gate.reduce((image.relu() if start == "paper" else image)[None])[0].relu().flatten(1)
        z = row_wise(gate.rows, torch.cov(reduced, correction=0), lambda v: v)
        torch.testing.assert_close(got.flatten(), z.sigmoid() * (1 if start == "paper" else 2))
    torch.testing.assert_close(gate(x), x * gate.factors(x))


@pytest.mark.parametrize("start", ["identity", "paper"])
def test_position_gate_by_definition(start):
    gate = shake(PositionGate(6, width=4, grid=2, start=start).double()).eval()
    x = torch.randn(3, 6, 4, 4, dtype=DOUBLE)
    for image, got in zip(x, gate(x), strict=True):
        reduced = gate.reduce((image.relu() if start == "paper" else image)[None])[0]
        cells = reduced.unflatten(1, (2, 2)).unflatten(3, (2, 2)).mean((2, 4)).flatten(1)
        z = row_wise(gate.rows, torch.cov(cells.T, correction=0), torch.relu)
        factors = z.sigmoid().view(2, 2).repeat_interleave(2, 0).repeat_interleave(2, 1)
        want = (image * factors).relu() if start == "paper" else 2 * image * factors
        torch.testing.assert_close(got, want)


def test_released_centering_of_positions_is_not_a_covariance_and_ours_is():
    channels, positions = 128, 64
    gate = PositionGate(channels).double().eval()
    nn.init.constant_(gate.reduce[1].bias, 2.0)
    x = torch.randn(1, channels, 8, 8, dtype=DOUBLE)
    ours = gate.matrix(x)[0]
    assert torch.linalg.eigvalsh(ours)[0] > -1e-12
    reduced = gate.reduce(x)[0].flatten(1).detach()
    mean = reduced.mean(0)
    centering = torch.eye(channels, dtype=DOUBLE) / positions - 1 / positions**2
    released = reduced.T @ centering @ reduced
    ratio = channels / positions
    torch.testing.assert_close(released, ratio * (ours + (1 - ratio) * mean.outer(mean)))
    assert torch.linalg.eigvalsh(released)[0] < -1


def test_squeeze_excitation_is_timms():
    theirs, ours = SEModule(8, rd_channels=3), SqueezeExcitation(8, hidden=3, start="paper")
    for a, b in ((ours.squeeze, theirs.fc1), (ours.excite, theirs.fc2)):
        a.load_state_dict(
            {name: value.flatten(1) if value.dim() > 1 else value for name, value in b.state_dict().items()}
        )
    x = torch.randn(2, 8, 5, 3)
    torch.testing.assert_close(ours(x), theirs(x))
    assert SqueezeExcitation(64).squeeze.out_features == 4


@pytest.mark.parametrize("fusion", ["average", "max", "concat"])
@pytest.mark.parametrize("start", ["identity", "paper"])
def test_fusions_by_definition(fusion, start):
    gate = shake(FusedGate(6, fusion=fusion, **SMALL, start=start)).eval()
    x = torch.randn(2, 6, 5, 5)
    c, p = gate.by_channel(x), gate.by_position(x)
    if fusion == "concat":
        both = gate.norm(gate.joined[0](c) + gate.joined[1](p))
        want = both if start == "paper" else x + both
    else:
        want = c + p if fusion == "average" else torch.where(c > p, c, p)
        want = want / 2 if (fusion, start) == ("average", "identity") else want
    torch.testing.assert_close(gate(x), want)


@pytest.mark.parametrize(("channels", "groups", "height"), [(256, 4, 11), (512, 8, 9), (2048, 32, 5), (112, 1, 15)])
def test_concat_has_the_released_kernels(channels, groups, height):
    convolution = FusedGate(channels, fusion="concat").joined[0]
    assert convolution.groups == groups
    assert convolution.kernel_size == (height, 1)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", list_gates())
def test_a_gate_starts_as_the_identity_and_learns(kind, training):
    gate = small(kind).train(training)
    x = torch.randn(4, 6, 7, 5)
    assert torch.equal(gate(x), x)
    optimizer = torch.optim.SGD(gate.parameters(), 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        (gate(x) * torch.randn_like(x)).sum().backward()
        # Also what DistributedDataParallel needs: every parameter takes part.
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in gate.parameters())
        optimizer.step()
    assert all(p.grad.abs().max() > 0 for name, p in gate.named_parameters() if "reduce.0.bias" not in name)
    assert not torch.allclose(gate(x), x, rtol=1e-3)


@pytest.mark.parametrize("kind", ["channel", "position", "se"])
def test_the_released_start_halves_the_features(kind):
    factors = create_gate(32, kind, start="paper").eval().factors(torch.randn(2, 32, 8, 8))
    assert abs(factors.mean() - 0.5) < 0.1
    assert 0 < factors.min() < factors.max() < 1


@pytest.mark.parametrize("kind", list_gates())
def test_any_size_of_image(kind):
    gate = shake(small(kind)).eval()
    for size in ((1, 2), (3, 9), (14, 14)):
        x = torch.randn(1, 6, *size)
        assert gate(x).shape == x.shape
    with pytest.raises(ValueError, match=r"expected features \(B, 6, H, W\), got \(2, 5, 4, 4\)"):
        gate(torch.randn(2, 5, 4, 4))
    with pytest.raises(ValueError, match=r"expected features \(B, 6, H, W\), got \(2, 6, 4\)"):
        gate(torch.randn(2, 6, 4))


def test_a_covariance_needs_two_positions_behind_the_stride():
    gate = ChannelGate(6, stride=2)
    assert gate.matrix(torch.randn(1, 6, 4, 4)).shape == (1, 6, 6)
    with pytest.raises(ValueError, match="at least 2 positions, got a map of 1 x 1 behind stride 2"):
        gate(torch.randn(1, 6, 2, 2))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["channel", "position", "average", "concat"])
def test_half_precision_with_a_covariance_in_float32(kind, dtype):
    gate = small(kind)
    blocks = [m for m in gate.modules() if hasattr(m, "matrix")]
    for block in blocks:
        shake(block.rows)
        # Reduced features of some hundreds, whose squares would overflow float16.
        block.reduce[1].weight.data.fill_(400)
    x = torch.randn(4, 6, 6, 6)
    with torch.autocast("cpu", dtype):
        assert all(block.matrix(x).dtype == torch.float32 for block in blocks)
        out = gate(x.to(dtype))
        assert out.dtype == dtype
        out.float().square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in gate.parameters())
    torch.testing.assert_close(out.float(), gate(x.to(dtype).float()), rtol=0.1, atol=0.2)


@pytest.mark.parametrize("kind", list_gates())
def test_all_in_half_precision(kind):
    gate, x = shake(small(kind)).eval(), torch.randn(4, 6, 6, 6)
    want = gate(x)
    out = gate.bfloat16()(x.bfloat16())
    assert out.dtype == torch.bfloat16
    assert (out.float() - want).norm() < 0.1 * want.norm()


@pytest.mark.parametrize("kind", ["channel", "position", "concat", "se"])
def test_compiles_in_one_graph(kind):
    torch._dynamo.reset()
    gate = shake(small(kind))
    results = []
    for layer in (copy.deepcopy(gate), torch.compile(gate, backend="aot_eager", fullgraph=True)):
        x = torch.ones(3, 6, 4, 5).normal_(generator=torch.Generator().manual_seed(0)).requires_grad_()
        out = layer(x)
        results.append((out, torch.autograd.grad(out.square().sum(), x)[0]))
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", list_gates())
def test_gradcheck(kind):
    gate = shake(small(kind, channels=4).double())
    x = torch.randn(2, 4, 3, 4, dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(gate, x)


@pytest.mark.parametrize("channels", [24, 112, 320, 1024])
@pytest.mark.parametrize("like", [kind for kind in list_gates() if kind != "se"])
def test_the_peer_has_as_many_parameters(channels, like):
    with torch.device("meta"):
        sizes = [
            sum(p.numel() for p in create_gate(channels, **options).parameters())
            for options in ({"kind": like}, {"kind": "se", "like": like})
        ]
    assert abs(sizes[1] - sizes[0]) <= 0.01 * sizes[0]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"kind": "cube"},
            ValueError,
            "unknown gate 'cube'; known: channel, position, average, max, concat, se",
        ),
        ({"start": "half"}, ValueError, "unknown start 'half'; known: identity, paper"),
        ({"width": 0}, ValueError, "width must be a positive integer, got 0"),
        ({"stride": True}, ValueError, "stride must be a positive integer, got True"),
        ({"kind": "position", "grid": 2.5}, ValueError, "grid must be a positive integer, got 2.5"),
        ({"grid": 4}, TypeError, "gate 'channel': .*grid"),
        ({"kind": "se", "width": 4}, TypeError, "gate 'se': .*width"),
        ({"kind": "se", "hidden": 0}, ValueError, "hidden must be a positive integer, got 0"),
        ({"kind": "se", "like": "se"}, ValueError, "se takes a second-order gate to be like, or hidden"),
        ({"kind": "se", "like": "max", "hidden": 3}, ValueError, "got like='max' and hidden=3"),
        ({"channels": -1}, ValueError, "channels must be a positive integer, got -1"),
    ],
)
def test_bad_gates(options, error, message):
    with pytest.raises(error, match=message):
        create_gate(**{"channels": 8} | options)


def test_more_bad_gates():
    with pytest.raises(ValueError, match="unknown fusion 'sum'; known: average, max, concat"):
        FusedGate(8, fusion="sum")
    with pytest.raises(ValueError, match="1000 channels has 2000 parameters within 1%; the nearest has 3001"):
        equal_width(1000, 2000)


# Stages as feature_info names them, and the stride whose features the backbone gives.
NETWORKS = {
    "tf_efficientnet_lite0": (["blocks.2", "blocks.4"], 16),
    "resnet18": (["layer2", "layer3"], 16),
    "resnet50": (["layer1", "layer4"], 32),
    "mobilenetv3_small_100": (["bn1", "blocks.3"], 16),
    "regnety_002": (["s2", "s3"], 16),
}


def untrained(name):
    """A network whose residual branches do not start at zero, as timm's do."""
    network = create_network(name, pretrained=False).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
    return network


@pytest.mark.parametrize("pruned", [True, False], ids=["inserted after pruning", "inserted before"])
@pytest.mark.parametrize("name", NETWORKS)
def test_inserted_gates_change_nothing_and_then_something(name, pruned):
    stages, stride = NETWORKS[name]
    network = untrained(name)
    plain = Backbone(copy.deepcopy(network), name, stride).eval()
    gates = None if pruned else insert_gates(network, stages, width=8)
    backbone = Backbone(network, name, stride)
    gates = insert_gates(backbone.network, stages, width=8) if pruned else gates
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        want = plain(x)
        assert torch.equal(backbone(x), want)
        for gate in gates:
            assert not gate.training
            before = backbone(x)
            gate.rows.mix.bias += torch.randn(gate.channels)
            assert not torch.allclose(backbone(x), before, rtol=1e-3)
        twin = copy.deepcopy(backbone)
        assert torch.equal(twin(x), backbone(x))
        for gate in gates:
            nn.init.zeros_(gate.rows.mix.bias)
        assert torch.equal(backbone(x), want)
        assert not torch.allclose(twin(x), want, rtol=1e-3)
    other = Backbone(create_network(name, pretrained=False), name, stride).eval()
    insert_gates(other.network, stages, width=8)
    other.load_state_dict(twin.state_dict())
    torch.testing.assert_close(other(x), twin(x))


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "seresnet33ts", "seresnet50"])
def test_resnets_are_gated_in_front_of_the_residual_addition(name):
    network = create_network(name, pretrained=False).eval()
    if name == "seresnet33ts":  # another family of blocks: behind the stage
        (gate,) = insert_gates(network, ["stages.2"])
        assert network.stages[2].gate is gate
        return
    before = network.layer3[-1].se
    (gate,) = insert_gates(network, ["layer3"])
    block = network.layer3[-1]
    assert isinstance(block, BasicBlock | Bottleneck)
    assert block.se is gate if before is None else list(block.se) == [before, gate]
    nn.init.constant_(gate.rows.mix.bias, -200)
    x = torch.randn(2, gate.channels, 5, 5)
    torch.testing.assert_close(block(x), x.relu())
    if before is None:
        with pytest.raises(ValueError, match="stage 'layer3' has a gate already"):
            insert_gates(network, ["layer3"])


def test_gates_behind_a_stage_run_once_in_every_way_of_running_the_network():
    for name, stage in (("tf_efficientnet_lite0", "blocks.4"), ("regnety_002", "s4")):
        network = create_network(name, pretrained=False).eval()
        (gate,) = insert_gates(network, [stage])
        calls = []
        gate.register_forward_hook(lambda *_: calls.append(1))  # noqa: B023
        x = torch.randn(1, 3, 64, 64)
        network(x)
        network.forward_intermediates(x)
        assert len(calls) == 2
        network.set_grad_checkpointing()
        network.train()(torch.randn(2, 3, 64, 64)).sum().backward()
        assert gate.rows.mix.weight.grad.abs().max() > 0


def test_a_gated_network_compiles():
    # Traced only: what the gates themselves compile to is tested above.
    torch._dynamo.reset()
    backbone = Backbone(untrained("regnety_002"), "regnety_002", 16)
    (gate,) = insert_gates(backbone.network, ["s3"])
    nn.init.normal_(gate.rows.mix.bias)
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(torch.compile(backbone, backend="eager", fullgraph=True)(x), backbone(x))


def test_stages_that_are_not_there():
    network = create_network("resnet18", pretrained=False)
    with pytest.raises(
        ValueError, match="ResNet has no stage 'layer9'; its stages: act1, layer1, layer2, layer3, layer4"
    ):
        insert_gates(network, ["layer3", "layer9"])
    with pytest.raises(ValueError, match=r"each stage takes one gate, got \['layer3', 'layer3'\]"):
        insert_gates(network, ["layer3", "layer3"])
    with pytest.raises(ValueError, match="unknown gate 'cube'"):
        insert_gates(network, ["layer3"], "cube")
    assert not any(isinstance(module, Gate) for module in network.modules())
    for name, last in (("resnet18", "layer4"), ("tf_efficientnet_lite0", "blocks.6"), ("regnety_002", "s4")):
        backbone = gcplib.create_backbone(name, pretrained=False, stride=16)
        with pytest.raises(ValueError, match=f"has no stage '{last}'; its stages: .*"):
            insert_gates(backbone.network, [last])


def test_a_stage_may_have_options_of_its_own():
    network = create_network("resnet18", pretrained=False)
    stages = {"layer1": {"stride": 2, "kind": "channel"}, "layer2": {}, "layer3": {"width": 4}}
    first, second, third = insert_gates(network, stages, "average", width=8)
    assert (type(first), first.stride, first.reduce[0].stride) == (ChannelGate, 2, (2, 2))
    assert isinstance(second, FusedGate)
    assert [gate.by_channel.reduce[0].out_channels for gate in (second, third)] == [8, 4]
    assert network(torch.randn(2, 3, 64, 64)).shape == (2, 1000)
    network = create_network("resnet18", pretrained=False)
    for bad, message in (
        ({"layer1": 2}, r"a mapping of options, such as .*got \{'layer1': 2\}"),
        ([["layer1"]], "stages are a list of names"),
    ):
        with pytest.raises(ValueError, match=message):
            insert_gates(network, bad)
    with pytest.raises(TypeError, match="stryde"):
        insert_gates(network, {"layer1": {"stryde": 2}})


def test_gates_take_device_dtype_and_mode_of_the_network():
    network = create_network("resnet18", pretrained=False).double().train()
    gates = insert_gates(network, ["layer1", "layer2"], "se", like="position")
    assert {p.dtype for gate in gates for p in gate.parameters()} == {DOUBLE}
    assert all(gate.training for gate in gates)


def test_gates_learn_as_the_pool_does():
    backbone = gcplib.create_backbone("resnet18", pretrained=False)
    insert_gates(backbone, ["layer2"], kind="average", **SMALL)
    pool = gcplib.create_pool("mpn_cov", backbone.out_channels, reduction=8)
    model = Model(backbone, Head(pool, 5, gate=create_gate(backbone.out_channels, "average", **SMALL)))
    groups = {g["name"]: {id(p) for p in g["params"]} for g in make_optimizer(model, Recipe()).param_groups}
    gates = [module for module in model.modules() if isinstance(module, FusedGate)]
    assert len(gates) == 2
    assert {id(p) for gate in gates for p in gate.parameters()} <= groups["pool"]
    assert model(torch.randn(2, 3, 64, 64)).shape == (2, 5)
