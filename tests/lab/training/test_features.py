from types import SimpleNamespace

import pytest
import torch

import gcplib
import gcplib.lab.training.features as features_module
from gcplib.lab.files import cache_dir
from gcplib.lab.training import cache_features


@pytest.fixture
def own_cache(tmp_path, monkeypatch, tiny_data):
    monkeypatch.setenv("GCPLIB_CACHE", str(tmp_path))
    return tmp_path


def test_features_are_the_backbones_in_the_order_of_the_data(tiny_data, own_cache):
    features = cache_features(tiny_data)
    backbone = gcplib.create_backbone().eval()
    with torch.inference_mode():
        want = backbone(backbone.prepare(tiny_data.images([5, 17])))
    torch.testing.assert_close(features[[5, 17]], want, atol=1e-4, rtol=1e-4)
    assert features.shape == (len(tiny_data), 112, 4, 4)
    # Both the computed and the stored ones can be trained on.
    for found in (features, cache_features(tiny_data)):
        layer = torch.nn.Conv2d(112, 2, 1)
        layer(found[:2]).sum().backward()


@pytest.mark.parametrize("damage", ["truncated", "altered"])
def test_a_damaged_file_is_noticed_and_made_again(tiny_data, own_cache, damage):
    want = cache_features(tiny_data).clone()
    cache_features(tiny_data)  # read and verified: a file that changes later is verified again
    (path,) = cache_dir().glob("features-*.safetensors")
    data = bytearray(path.read_bytes())
    if damage == "truncated":
        data = data[: len(data) // 2]
    else:
        data[-100] ^= 1
    path.write_bytes(data)
    with pytest.warns(UserWarning, match="truncated or altered"):
        got = cache_features(tiny_data)
    assert torch.equal(got, want)


def test_an_interrupted_computation_leaves_no_file(tiny_data, own_cache, monkeypatch):
    def full_disk(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(features_module, "save_file", full_disk)
    with pytest.raises(OSError, match="No space"):
        cache_features(tiny_data)
    assert not list(cache_dir().glob("*features*.safetensors"))


def test_untrained_backbones_are_not_cached(tiny_data):
    with pytest.raises(ValueError, match="untrained"):
        cache_features(tiny_data, pretrained=False)


@pytest.mark.parametrize(
    ("memory", "disk", "error", "message"),
    [
        (1000, 10**12, MemoryError, r"more than 90% of the 1e-06 GB of free memory"),
        (10**12, 1000, OSError, r"more than the 1e-06 GB that are free in "),
    ],
)
def test_features_larger_than_the_machine_are_refused_after_one_batch(
    tiny_data, own_cache, monkeypatch, memory, disk, error, message
):
    read = []
    monkeypatch.setattr(type(tiny_data), "images", _counting(type(tiny_data).images, read))
    monkeypatch.setattr(features_module.psutil, "virtual_memory", lambda: SimpleNamespace(available=memory))
    monkeypatch.setattr(features_module.shutil, "disk_usage", lambda path: SimpleNamespace(free=disk))
    size = 32 * 112 * 4 * 4 * 4 / 1e9
    with pytest.raises(error, match=message + ".*Train with stage='full'.*fewer pixels") as caught:
        cache_features(tiny_data)
    assert f"32 images, 112 x 4 x 4 entries each, take {size:.3g} GB" in str(caught.value)
    assert read == [features_module.BATCH]
    assert not list(cache_dir().glob("*features*.safetensors"))


def _counting(images, read):
    def counted(self, indices):
        read.append(len(indices))
        return images(self, indices)

    return counted


def test_the_size_of_the_papers_setting_is_known(own_cache, monkeypatch):
    available = int(75.8e9 / features_module.MEMORY_FRACTION)
    monkeypatch.setattr(features_module.shutil, "disk_usage", lambda path: SimpleNamespace(free=10**12))
    for memory, fits in ((available, True), (available - 10**9, False)):
        monkeypatch.setattr(features_module.psutil, "virtual_memory", lambda m=memory: SimpleNamespace(available=m))
        if fits:
            features_module._check_room((11_788, 2048, 28, 28))
        else:
            with pytest.raises(MemoryError, match=r"11788 images, 2048 x 28 x 28 entries each, take 75\.7 GB"):
                features_module._check_room((11_788, 2048, 28, 28))
