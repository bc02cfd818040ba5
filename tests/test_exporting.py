"""ONNX files, against onnxruntime; torch.export and AOTInductor against torch."""

import copy

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import gcplib
from gcplib import exporting
from gcplib.exporting import ExportError, export, read_metadata

# What has no form by products says so.
REFUSED = {"svd_top_n": "a truncation to"}
OPTIONS = {"cbp": {"sketch": 64}, "svd_top_n": {"rule": "top_n(2)"}}


def features(batch, size):
    """Return features as behind a ReLU, a third of them zero, with channels that lie together."""
    mix = torch.randn(16, 16, generator=torch.Generator().manual_seed(1)) / 4
    x = torch.randn(batch, 16, size, size, generator=torch.Generator().manual_seed(batch))
    return torch.einsum("ij,bjhw->bihw", mix, x).add_(0.2).relu_()


def outputs(path, x):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]


# All svd rules and idccp have the values of mpn_cov, mpa is an iteration like isqrt_cov, and few positions take a
# root's other side. Log and isice share all but a function with these.
QUICK = ("cbp", "mpn_cov", "isqrt_cov")
CASES = [(name, size) for name in gcplib.list_pools() if name not in REFUSED for size in (7, 3)]


@pytest.mark.parametrize(
    ("name", "size"),
    [pytest.param(*case, marks=() if case in [(n, 7) for n in QUICK] else pytest.mark.slow) for case in CASES],
)
def test_every_pool_agrees_with_onnxruntime(name, size, tmp_path):
    pool = gcplib.create_pool(name, 16, **OPTIONS.get(name, {})).eval()
    before = copy.deepcopy(pool.state_dict())
    path = export(pool, tmp_path / "pool.onnx", features(2, size))
    for batch in (1, 5):
        want = pool(features(batch, size)).detach()
        error = (torch.from_numpy(outputs(path, features(batch, size))) - want).abs().max() / want.abs().max()
        assert error < 1e-4
    assert all(torch.equal(value, before[key]) for key, value in pool.state_dict().items())
    assert [p.name for p in tmp_path.iterdir()] == ["pool.onnx"]
    (tmp_path / "other").touch()
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize("name", REFUSED)
def test_what_needs_eigenvalues_says_so(name, tmp_path):
    pool = gcplib.create_pool(name, 16, **OPTIONS.get(name, {})).eval()
    with pytest.raises(ValueError, match=REFUSED[name]):
        export(pool, tmp_path / "pool.onnx", features(2, 7))
    with pytest.raises(ValueError, match="route 'products' has the square root"):
        export(gcplib.create_pool("mpn_cov", 16, exponent=0.3).eval(), tmp_path / "pool.onnx", features(2, 7))
    assert not list(tmp_path.iterdir())


def network(pool="mpn_cov"):
    backbone = gcplib.create_backbone("resnet10t", pretrained=False, stride=16)
    return gcplib.create_model(backbone, pool, 5, reduction=16).eval()


def test_a_whole_network_with_its_constants(tmp_path):
    model = network()
    images = torch.randn(2, 3, 64, 64)
    path = export(model, tmp_path / "deep" / "model.onnx", images, metadata={"classes": ["ä", "b,c"]})
    np.testing.assert_allclose(outputs(path, images), model(images).detach(), rtol=1e-3, atol=1e-4)
    onnx.checker.check_model(str(path))
    found = read_metadata(path)
    assert found["classes"] == ["ä", "b,c"]
    assert (found["mean"], found["std"]) == (list(model.backbone.mean), list(model.backbone.std))
    assert (found["input"], found["gcplib"]) == ([3, 64, 64], gcplib.__version__)


def test_bad_input_is_refused_before_anything_is_written(tmp_path):
    model = network("gap")
    with pytest.raises(ValueError, match=r"in training mode; call \.eval\(\)"):
        export(model.train(), tmp_path / "m.onnx")
    for example in (torch.randn(1, 3, 64, 64), torch.randn(2, 3, 64, 64).double()):
        with pytest.raises(ValueError, match="at least two float32 inputs"):
            export(model.eval(), tmp_path / "m.onnx", example)
    with pytest.raises(TypeError, match="not JSON serializable"):
        export(model.eval(), tmp_path / "m.onnx", torch.randn(2, 3, 64, 64), metadata={"classes": np.int64(3)})
    assert not list(tmp_path.iterdir())


def test_a_file_that_computes_something_else_does_not_replace_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "pool.onnx"
    path.write_text("old")
    # Eigenvalues far below what the fixed number of steps reaches.
    steps = {torch.float32: (2, 1e-2, 0.1)}
    monkeypatch.setattr("gcplib.linalg.roots.ROOT_STEPS", steps)
    with pytest.raises(ExportError, match=r"they differ by .* of the largest"):
        export(gcplib.create_pool("mpn_cov", 16).eval(), path, features(2, 7))
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_what_torch_cannot_write_says_so(tmp_path):
    class Branches(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(ExportError, match="torch cannot write Branches"):
        exporting.export(Branches().eval(), tmp_path / "m.onnx", torch.randn(2, 3))


# By torch 2.11 itself, when it loads.
@pytest.mark.filterwarnings("ignore:The given buffer is not writable:UserWarning")
@pytest.mark.parametrize("name", ["mpn_cov", "isqrt_cov", "gaussian"])
def test_torch_export_saves_and_loads(name, tmp_path):
    pool = gcplib.create_pool(name, 16).eval()
    with torch.no_grad():
        program = torch.export.export(pool, (features(2, 7),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, tmp_path / "pool.pt2")
    again = torch.export.load(tmp_path / "pool.pt2").module()
    torch.testing.assert_close(again(features(5, 7)), pool(features(5, 7)), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mpn_cov", "isqrt_cov", "log"])
def test_compiled_ahead_of_time(name, tmp_path):
    pool = gcplib.create_pool(name, 16).eval()
    with torch.no_grad(), gcplib.linalg.by_products():
        program = torch.export.export(pool, (features(2, 7),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    package = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "pool.pt2"))
    again = torch._inductor.aoti_load_package(package)
    torch.testing.assert_close(again(features(5, 7)), pool(features(5, 7)), rtol=1e-4, atol=1e-5)
