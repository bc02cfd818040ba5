import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

import gcplib
import gcplib.lab.training.features as features_module
from gcplib.lab.files import cache_dir
from gcplib.lab.training import cache_all_features, cache_features, feature_files


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


@pytest.mark.parametrize("damage", ["truncated", "altered", "version", "half"])
def test_a_damaged_file_is_noticed_and_made_again(tiny_data, own_cache, damage):
    want = cache_features(tiny_data).clone()
    cache_features(tiny_data)  # read and verified: a file that changes later is verified again
    (folder,) = cache_dir().glob("features-*/")
    path = folder / ("arrays.json" if damage in ("version", "half") else "features.npy")
    data = bytearray(path.read_bytes())
    if damage == "truncated":
        data = data[: len(data) // 2]
    elif damage == "altered":
        data[-100] ^= 1
    elif damage == "version":
        data = data.replace(b'"version": 1', b'"version": 0')
    path.write_bytes(data)
    if damage == "half":
        path.unlink()
    with pytest.warns(UserWarning, match="truncated, altered or of another version"):
        got = cache_features(tiny_data)
    assert torch.equal(got, want)


def test_an_interrupted_computation_leaves_nothing_that_is_read(tiny_data, own_cache, monkeypatch):
    def full_disk(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(feature_files, "write_json", full_disk)
    with pytest.raises(OSError, match="No space"):
        cache_features(tiny_data)
    assert not list(cache_dir().glob("*features*/"))


def test_half_precision_takes_half_the_space_and_refuses_what_it_cannot_hold(tiny_data, own_cache):
    whole, half = (cache_features(tiny_data, dtype=dtype) for dtype in (torch.float32, torch.float16))
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), whole, atol=1e-3, rtol=1e-3)
    sizes = sorted(path.stat().st_size for path in cache_dir().glob("features-*/features.npy"))
    assert sizes[1] / sizes[0] == pytest.approx(2, rel=0.01)
    with pytest.raises(ValueError, match=r"x of the images 0 to 1 has values up to 100000, which torch.float16"):
        feature_files.stored(own_cache / "x", 2, lambda: iter([{"x": torch.full((2, 3), 1e5)}]), torch.float16)
    with pytest.raises(ValueError, match="x has values that are not finite"):
        feature_files.stored(own_cache / "x", 2, lambda: iter([{"x": torch.full((2, 3), torch.nan)}]), torch.float32)


def test_all_features_are_those_of_one_stage_and_the_own_vector(tiny_data, own_cache):
    found = cache_all_features(tiny_data, dtype=torch.float32)
    assert {name: tuple(value.shape[1:]) for name, value in found.items()} == {
        "stride16": (112, 4, 4),
        "stride32": (320, 2, 2),
        "own": (1280,),
    }
    torch.testing.assert_close(found["stride16"], cache_features(tiny_data), atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_images(own_cache):
    code = """
import pathlib, torch
from gcplib.lab.files import cache_dir
from gcplib.lab.training import feature_files

def own():
    # Pages of files are the system's cache and can be dropped; these are the process's own, in kB.
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon"))

def compute():
    for _ in range(40):
        peaks.append(own())
        yield {"features": torch.ones(8, 2**20)}

start, peaks = own(), []
feature_files.stored(cache_dir() / "features-x", 320, compute, torch.float32)
assert max(*peaks, own()) - start < 300_000, peaks
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (own_cache / "features-x" / "features.npy").stat().st_size > 1.3e9


def test_untrained_backbones_are_not_cached(tiny_data):
    with pytest.raises(ValueError, match="untrained"):
        cache_features(tiny_data, pretrained=False)


def test_features_larger_than_the_disk_are_refused_after_one_batch(tiny_data, own_cache, monkeypatch):
    read = []
    monkeypatch.setattr(type(tiny_data), "images", _counting(type(tiny_data).images, read))
    monkeypatch.setattr(feature_files.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    size = 32 * 112 * 4 * 4 * 4 / 1e9
    message = r"more than the 1e-06 GB that are free in .*Train with stage='full'.*fewer pixels"
    with pytest.raises(OSError, match=message) as caught:
        cache_features(tiny_data)
    assert f"32 images, 112 x 4 x 4 entries each, take {size:.3g} GB" in str(caught.value)
    assert read == [features_module.BATCH]
    assert not list(cache_dir().glob("*features*/"))


def _counting(images, read):
    def counted(self, indices):
        read.append(len(indices))
        return images(self, indices)

    return counted
