"""What programs reach beside tensors and modules: hubs, operators of their own, parts of PyTorch that are not here."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import distributed, fx, hub, library, onnx


def test_weights_by_address_are_fetched_once(tmp_path: Path) -> None:
    source = tmp_path / "weights.pth"
    graphc.save({"w": graphc.arange(3.0)}, source)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:8]
    named = tmp_path / f"weights-{digest}.pth"
    source.rename(named)
    cache = tmp_path / "cache"
    held = hub.load_state_dict_from_url(named.as_uri(), model_dir=str(cache), check_hash=True)
    assert held["w"].tolist() == [0.0, 1.0, 2.0]
    named.unlink()
    assert hub.load_state_dict_from_url(named.as_uri(), model_dir=str(cache))["w"].tolist() == [0.0, 1.0, 2.0]


def test_a_download_of_another_content_leaves_no_file(tmp_path: Path) -> None:
    source, target = tmp_path / "a.bin", tmp_path / "folder" / "b.bin"
    source.write_bytes(b"content")
    target.parent.mkdir()
    with pytest.raises(RuntimeError, match=r'invalid hash value \(expected "12345678", got "ed7002b4"\)'):
        hub.download_url_to_file(source.as_uri(), str(target), hash_prefix="12345678")
    assert list(target.parent.iterdir()) == []
    hub.download_url_to_file(source.as_uri(), str(target), hash_prefix="ed7002b4")
    assert target.read_bytes() == b"content"


def test_models_of_a_folder(tmp_path: Path) -> None:
    conf = 'dependencies = ["numpy"]\ndef scaled(by):\n    """A number times two."""\n    return 2 * by\n'
    (tmp_path / "hubconf.py").write_text(conf)
    folder = str(tmp_path)
    assert hub.list(folder, source="local") == ["scaled"] and hub.load(folder, "scaled", 3, source="local") == 6
    assert hub.help(folder, "scaled", source="local") == "A number times two."
    with pytest.raises(RuntimeError, match="Cannot find callable other in hubconf"):
        hub.load(folder, "other", source="local")
    with pytest.raises(NotImplementedError, match="a folder on this machine only"):
        hub.load("owner/name", "scaled")


def test_an_operator_of_ones_own_has_its_gradient() -> None:
    @library.custom_op("mine::triple", mutates_args=())
    def triple(x: Any) -> Any:
        return x * 3

    x = graphc.tensor([1.0, 2.0], requires_grad=True)
    triple(x).sum().backward()
    assert x.grad.tolist() == [3.0, 3.0]

    def setup(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.factor = inputs[0].detach()

    library.register_autograd("mine::triple", lambda ctx, g: g * 10 * ctx.factor, setup_context=setup)
    y = graphc.tensor([1.0, 2.0], requires_grad=True)
    triple(y).sum().backward()
    assert y.grad.tolist() == [10.0, 20.0]
    np.testing.assert_array_equal(graphc.compile(triple)(x.detach()).numpy(), [3.0, 6.0])
    with pytest.raises(ValueError, match=r"expected a name of the form namespace::name, got triple"):
        library.custom_op("triple", triple, mutates_args=())
    with pytest.raises(RuntimeError, match=r"there is no operator mine::other"):
        library.register_fake("mine::other")
    with pytest.raises(NotImplementedError, match=r"use graphc.library.custom_op"):
        library.Library("mine", "DEF")


def test_kernels_of_devices() -> None:
    """What is registered for the CPU runs; what is registered for others does not."""
    op = library.custom_op("mine::elsewhere", lambda x: x * 2, mutates_args=(), device_types="cuda")
    x = graphc.ones(2)
    with pytest.raises(NotImplementedError, match=r"Could not run 'mine::elsewhere'"):
        op(x)
    op.register_autograd(lambda ctx, g: g * 5)
    library.register_kernel("mine::elsewhere", ["cpu", "cuda"], lambda x: x * 3)
    library.register_kernel("mine::elsewhere", "cuda", lambda x: x * 4)
    x.requires_grad_()
    y = op(x)
    y.sum().backward()
    assert y.tolist() == [3.0, 3.0] and x.grad.tolist() == [5.0, 5.0]


def test_what_is_not_here_says_so() -> None:
    assert not distributed.is_available() and not distributed.is_initialized() and not onnx.is_in_onnx_export()
    with pytest.raises(RuntimeError, match=r"distributed.get_rank: graphc runs in one process"):
        distributed.get_rank()
    with pytest.raises(AttributeError, match=r"has no attribute 'anything'"):
        _ = distributed.anything
    with pytest.raises(NotImplementedError, match=r"graphc writes no ONNX"):
        onnx.export(None, None)
    with pytest.raises(NotImplementedError, match=r"use graphc.compile"):
        fx.symbolic_trace(None)
    with pytest.raises(OSError, match=r"no operators in compiled libraries"):
        graphc.ops.load_library("lib.so")
    assert fx.wrap("len") == "len"


def test_checks_raise_what_pytorchs_do() -> None:
    graphc._check(True, lambda: "never")
    for check, kind in ((graphc._check, RuntimeError), (graphc._check_index, IndexError), (graphc._check_value, ValueError)):
        with pytest.raises(kind, match="three"):
            check(1 > 2, lambda: "three")
    with pytest.raises(RuntimeError, match="nothing there"):
        graphc._assert_async(graphc.tensor(0), "nothing there")
    assert graphc._shape_as_tensor(graphc.ones(2, 3)).tolist() == [2, 3]
