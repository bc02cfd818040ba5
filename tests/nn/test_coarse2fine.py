"""Two looks at an image: closed forms of the region, the path of the gradient, and the machinery of torch."""

import copy
import os

import pytest
import torch
from torch import nn
from torch.nn import functional

from gcplib import create_pool, list_pools
from gcplib.models import Head
from gcplib.nn.coarse2fine import Attention, Coarse2Fine, Decoder, attend, crop, region_of

DOUBLE = torch.float64


class Waves(nn.Module):
    """A backbone without kinks, so that finite differences can be taken."""

    out_channels = 6

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 4, stride=4)

    def forward(self, x):
        return self.conv(x).tanh()


def small(pool="gap", classes=3, **options):
    torch.manual_seed(0)
    network = Coarse2Fine(Waves(), Head(create_pool(pool, 6), classes), **{"maps": 2, "first": 0} | options)
    # Regions that are not the whole image, as after some training.
    network.decoder.weight.data.normal_(std=3.0)
    return network


def smooth_images(count, height, width):
    """Images of low frequency, in which a region that moves changes little."""
    coarse = torch.randn(count, 3, 4, 4, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))
    return functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)


def gradient(loss, weight):
    return torch.autograd.grad(loss, weight, retain_graph=True, allow_unused=True)[0]


# Attention and decoder


@pytest.mark.parametrize("maps", [1, 4, 12])
def test_orthogonal_rows(maps):
    rows = Attention(12, maps=maps, init="orthogonal").weight.flatten(1)
    torch.testing.assert_close(rows @ rows.mT, torch.eye(maps), atol=1e-5, rtol=0)


def test_kaiming_rows_are_as_long_on_average_and_not_at_right_angles():
    rows = Attention(64, maps=200, init="kaiming").weight.detach().flatten(1)
    assert rows.square().sum(1).mean() == pytest.approx(1, abs=0.05)
    products = rows @ rows.mT
    overlap = products[~torch.eye(200, dtype=bool)].square().mean()
    assert overlap == pytest.approx(1 / 64, rel=0.1)


def test_both_inits_leave_the_generator_where_it_was():
    """So that a comparison by seed starts from one head, one decoder and one order of images."""
    decoders = []
    for init in ("orthogonal", "kaiming"):
        torch.manual_seed(0)
        Attention(12, maps=4, init=init)
        decoders.append(Decoder(12, maps=4).weight)
    torch.testing.assert_close(*decoders, rtol=0, atol=0)


def test_maps_are_between_zero_and_one_and_have_the_size_of_the_features():
    maps = Attention(6, maps=2)(torch.randn(3, 6, 5, 7))
    assert maps.shape == (3, 2, 5, 7)
    assert ((maps > 0) & (maps < 1)).all()


def test_attention_and_density_do_not_depend_on_the_scale_of_the_features():
    attention, decoder, features = Attention(6, maps=2), Decoder(6, maps=2), torch.randn(3, 6, 5, 7)
    maps = attention(features)
    torch.testing.assert_close(attention(50 * features), maps)
    torch.testing.assert_close(decoder(50 * features, maps), decoder(features, maps))
    assert decoder(torch.zeros(1, 6, 2, 2), attention(torch.zeros(1, 6, 2, 2))).tolist() == [[[0.25] * 2] * 2]


def test_the_decoder_is_a_convolution_of_the_attended_maps_side_by_side():
    attention, decoder = Attention(6, maps=3).double(), Decoder(6, maps=3).double()
    decoder.weight.data.normal_()
    features = torch.randn(2, 6, 4, 5, dtype=DOUBLE)
    maps = attention(features)
    scaled = features / features.square().mean((1, 2, 3), keepdim=True).sqrt()
    side_by_side = (maps[:, :, None] * scaled[:, None]).flatten(1, 2)
    energy = functional.conv2d(side_by_side, decoder.weight.reshape(1, 18, 1, 1) / 3)[:, 0]
    density = decoder(features, maps)
    torch.testing.assert_close(density, energy.flatten(1).softmax(1).view(2, 4, 5))
    torch.testing.assert_close(density.sum((1, 2)), torch.ones(2, dtype=DOUBLE))


def test_attended_features_are_the_mean_over_the_maps():
    features, maps = torch.randn(2, 6, 4, 5), torch.rand(2, 3, 4, 5)
    want = (maps[:, :, None] * features[:, None]).mean(1)
    torch.testing.assert_close(attend(features, maps), want)


# The region


@pytest.mark.parametrize(
    ("rows", "columns", "want"),
    [
        (slice(None), slice(None), (0.0, 0.0, 1.0, 1.0)),
        (slice(0, 4), slice(None), (0.0, -0.5, 1.0, 0.5)),
        (slice(2, 6), slice(6, 10), (0.6, 0.0, 0.4, 0.5)),
        (slice(3, 4), slice(0, 1), (-0.9, -0.125, 0.1, 0.125)),
    ],
    ids=["all", "upper half", "a part", "one cell"],
)
def test_an_even_rectangle_of_cells_is_its_own_region(rows, columns, want):
    density = torch.zeros(1, 8, 10, dtype=DOUBLE)
    density[:, rows, columns] = 1
    torch.testing.assert_close(region_of(density / density.sum())[0], torch.tensor(want, dtype=DOUBLE))


def test_the_region_has_mean_and_variance_of_the_density():
    density = torch.rand(1, 3, 4, dtype=DOUBLE)
    density /= density.sum()
    # A fine grid of points stands for the cells, which are even inside.
    points = density[0].repeat_interleave(200, 0).repeat_interleave(200, 1) / 200**2
    y, x = ((2 * torch.arange(n, dtype=DOUBLE) + 1) / n - 1 for n in points.shape)
    for place, along, share in ((0, x, points.sum(0)), (1, y, points.sum(1))):
        mean = (along * share).sum()
        assert region_of(density)[0, place] == pytest.approx(mean.item())
        variance = ((along - mean) ** 2 * share).sum()
        assert region_of(density)[0, place + 2] == pytest.approx((3 * variance).sqrt().item(), rel=1e-4)


def test_the_whole_image_is_cropped_to_itself():
    x = torch.randn(2, 3, 20, 28, dtype=DOUBLE)
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]], dtype=DOUBLE).expand(2, 4)
    torch.testing.assert_close(crop(x, whole), x)


def test_a_crop_enlarges_its_region():
    height, width = 20, 28
    y, x = ((2 * torch.arange(n, dtype=DOUBLE) + 1) / n - 1 for n in (height, width))
    # Each pixel says where it is: bilinear sampling repeats linear functions exactly.
    image = torch.stack(torch.broadcast_tensors(x[None], y[:, None]))[None]
    seen = crop(image, torch.tensor([[0.25, -0.5, 0.5, 0.25]], dtype=DOUBLE))[0]
    torch.testing.assert_close(seen[0], (0.25 + 0.5 * x)[None].expand(height, width))
    torch.testing.assert_close(seen[1], (-0.5 + 0.25 * y)[:, None].expand(height, width))


def test_beyond_the_edge_the_edge_is_repeated():
    x = torch.randn(1, 3, 8, 8, dtype=DOUBLE)
    seen = crop(x, torch.tensor([[1.0, 0.0, 0.5, 1.0]], dtype=DOUBLE))
    torch.testing.assert_close(seen[..., 4:], x[..., -1:].expand(1, 3, 8, 4))


def test_a_new_network_looks_at_nearly_all_of_the_image():
    torch.manual_seed(0)
    network = Coarse2Fine(Waves(), Head(create_pool("gap", 6), 3), maps=4).double()
    region = network.look(smooth_images(4, 32, 32)).region
    torch.testing.assert_close(region, torch.tensor([[0.0, 0, 1, 1]], dtype=DOUBLE).expand(4, 4), atol=0.15, rtol=0)


def test_crop_and_region_gradcheck():
    torch.manual_seed(0)
    x = torch.randn(2, 1, 6, 5, dtype=DOUBLE, requires_grad=True)
    density = torch.rand(2, 3, 4, dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, d: crop(x, region_of(d / d.sum((1, 2), keepdim=True))), (x, density))


# The path of the gradient


def test_the_fine_loss_reaches_the_attention_through_the_image():
    network, x, target = small().double(), smooth_images(4, 24, 32), torch.tensor([0, 1, 2, 0])
    loss = functional.cross_entropy(network.look(x).fine, target)
    found = gradient(loss, network.attention.weight)
    assert found.norm() > 1e-4

    # The same written out, with an attention of its own for the second look, by finite differences.
    second, attention = copy.deepcopy(network.attention), network.attention

    def fine_loss(weight, bias):
        features = network.backbone(x)
        maps = torch.func.functional_call(attention, {"weight": weight, "bias": bias}, (features,))
        closer = network.backbone(crop(x, region_of(network.decoder(features, maps))))
        return functional.cross_entropy(network.head(attend(closer, second(closer))), target)

    parameters = (attention.weight, attention.bias)
    assert torch.autograd.gradcheck(fine_loss, parameters)
    written_out = torch.autograd.grad(fine_loss(*parameters), parameters)
    torch.testing.assert_close(torch.autograd.grad(loss, parameters), written_out)


def test_without_the_path_the_fine_loss_does_not():
    x, target = smooth_images(4, 24, 32), torch.tensor([0, 1, 2, 0])
    networks = {path: small(path=path).double() for path in (True, False)}
    looks = {path: network.look(x) for path, network in networks.items()}
    for name in looks[True]._fields:
        torch.testing.assert_close(getattr(looks[True], name), getattr(looks[False], name), rtol=0, atol=0)
    losses = {path: functional.cross_entropy(seen.fine, target) for path, seen in looks.items()}
    for name in ("weight", "bias"):
        assert gradient(losses[False], getattr(networks[False].attention, name)) is None
        assert gradient(losses[True], getattr(networks[True].attention, name)).norm() > 0
    # The decoder learns the same either way, and the coarse loss trains attention either way.
    decoders = [gradient(losses[path], networks[path].decoder.weight) for path in (True, False)]
    assert decoders[0].norm() > 0
    torch.testing.assert_close(*decoders, rtol=0, atol=0)
    coarse = [functional.cross_entropy(looks[p].coarse, target) for p in (True, False)]
    attentions = [gradient(loss, networks[p].attention.weight) for loss, p in zip(coarse, (True, False), strict=True)]
    assert attentions[0].norm() > 0
    torch.testing.assert_close(*attentions, rtol=0, atol=0)


def test_the_path_is_there_from_the_first_step():
    """A decoder of zeros would let no gradient pass."""
    torch.manual_seed(0)
    network = Coarse2Fine(Waves(), Head(create_pool("gap", 6), 3), maps=2, first=0).double()
    loss = functional.cross_entropy(network.look(smooth_images(4, 24, 32)).fine, torch.tensor([0, 1, 2, 0]))
    assert gradient(loss, network.attention.weight).norm() > 0


# Stages and outputs


def test_two_stages_by_the_epoch_alone():
    network, x = small(first=2), torch.randn(3, 3, 16, 16)
    assert len(network(x)) == 1  # a new network is in epoch 0
    for epoch, count in ((3, 2), (1, 1), (2, 2), (0, 1)):
        network.enter_epoch(epoch)
        out = network(x)
        assert isinstance(out, tuple)
        assert len(out) == count
        torch.testing.assert_close(out[0], network.look(x).coarse)
    assert len(small(first=0)(x)) == 2


@pytest.mark.parametrize("epoch", [0, 5])
def test_evaluation_is_the_mean_of_both_looks_in_any_stage(epoch):
    network, x = small(first=2).eval(), torch.randn(3, 3, 16, 16)
    network.enter_epoch(epoch)
    seen = network.look(x)
    torch.testing.assert_close(network(x), (seen.coarse + seen.fine) / 2)
    assert not torch.allclose(seen.coarse, seen.fine)


def test_the_first_stage_gives_the_decoder_a_gradient_of_zero():
    network = small(first=1)
    functional.cross_entropy(network(torch.randn(4, 3, 16, 16))[0], torch.tensor([0, 1, 2, 0])).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad.norm() == 0) == name.startswith("decoder"), name


@pytest.mark.parametrize("pool", list_pools())
def test_any_pool_trains(pool):
    torch.manual_seed(0)
    network = Coarse2Fine(Waves(), Head(create_pool(pool, 6, reduction=4), 3), maps=2, first=0)
    outputs = network(torch.randn(4, 3, 20, 28))
    assert [tuple(out.shape) for out in outputs] == [(4, 3), (4, 3)]
    sum(functional.cross_entropy(out, torch.tensor([0, 1, 2, 0])) for out in outputs).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_dtype_and_layout_follow_the_input(dtype):
    network = small().to(dtype)
    x = torch.randn(2, 3, 18, 33, dtype=dtype)
    seen = network.look(x)
    assert all(value.dtype == dtype for value in seen)
    assert seen.image.shape == x.shape
    assert network.look(x.contiguous(memory_format=torch.channels_last)).image.is_contiguous(
        memory_format=torch.channels_last
    )


def test_autocast_samples_in_float32():
    network, x = small("mpn_cov"), torch.randn(2, 3, 16, 16)
    want = network.look(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = network.look(x)
    assert got.density.dtype == got.region.dtype == got.image.dtype == torch.float32
    torch.testing.assert_close(got.region, want.region, atol=0.05, rtol=0)


def test_weights_travel_in_the_state_dict():
    torch.manual_seed(3)
    other = Coarse2Fine(Waves(), Head(create_pool("gap", 6), 3), maps=2, first=0, path=False)
    network = small(first=4).eval()
    other.eval().load_state_dict(network.state_dict())
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(other(x), network(x))


# Errors


@pytest.mark.parametrize("maps", [0, -1, 2.0, True])
def test_fewer_than_one_map(maps):
    with pytest.raises(ValueError, match=f"maps must be a positive integer, got {maps}"):
        Attention(6, maps=maps)


def test_more_orthonormal_rows_than_channels():
    with pytest.raises(ValueError, match="6 channels have no 7 orthonormal rows; take at most 6 maps, or init 'kai"):
        small(maps=7)
    assert small(maps=7, init="kaiming")(torch.randn(2, 3, 16, 16))[1].shape == (2, 3)


def test_unknown_init():
    with pytest.raises(ValueError, match="unknown init of the attention weights 'uniform'; known: orthogonal, kaiming"):
        small(init="uniform")


@pytest.mark.parametrize("first", [-1, 1.5, True])
def test_stage_lengths_that_make_no_sense(first):
    with pytest.raises(ValueError, match=f"first counts epochs of coarse training, an integer from 0, got {first}"):
        small(first=first)


def test_path_is_true_or_false():
    with pytest.raises(ValueError, match="path must be true or false, got 'yes'"):
        small(path="yes")


# Inside torch


@pytest.mark.parametrize(
    "first", [pytest.param(0, id="both looks", marks=pytest.mark.slow), pytest.param(1, id="coarse alone")]
)
def test_compiles_in_one_graph(first):
    torch._dynamo.reset()
    network, x = small("mpn_cov", first=first), torch.randn(2, 3, 16, 16)
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    for got, want in zip(compiled(x), network(x), strict=True):
        torch.testing.assert_close(got, want)
        weight = network.backbone.conv.weight
        torch.testing.assert_close(gradient(got.sum(), weight), gradient(want.sum(), weight), rtol=1e-4, atol=1e-5)


def _data():
    generator = torch.Generator().manual_seed(2)
    return torch.randn(4, 3, 16, 16, generator=generator), torch.tensor([0, 1, 2, 0])


def _loss(outputs, target):
    return sum(functional.cross_entropy(out, target) for out in outputs) / len(outputs)


def _worker(rank, place, want):
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.distributed.init_process_group("gloo", init_method=f"file://{place}", rank=rank, world_size=2)
    try:
        model, (x, target) = nn.parallel.DistributedDataParallel(small(first=1)), _data()
        # Twice each: a parameter that was left out in a step would stop the next one.
        for epoch in (0, 0, 1, 1):
            model.module.enter_epoch(epoch)
            model.zero_grad()
            _loss(model(x[rank::2]), target[rank::2]).backward()
            for got, expected in zip(model.parameters(), want[epoch], strict=True):
                torch.testing.assert_close(got.grad, expected)
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_devices_take_the_step_of_one_in_both_stages(tmp_path):
    want = []
    for epoch in (0, 1):
        network, (x, target) = small(first=1), _data()
        network.enter_epoch(epoch)
        _loss(network(x), target).backward()
        want.append([p.grad for p in network.parameters()])
    torch.multiprocessing.spawn(_worker, (tmp_path / "meeting", want), nprocs=2)
