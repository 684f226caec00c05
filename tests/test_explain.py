"""What `explain()` says, and that it is true."""

from __future__ import annotations

import re

import pytest

import graphc


def chain(x: graphc.Tensor) -> graphc.Tensor:
    """elementwise -> reduce -> elementwise, with permutes between."""
    total = (x.permute(2, 0, 1).exp() * 2.0).sum(0)
    return total.permute(1, 0).tanh() + 1.0


def test_a_chain_with_permutes_is_one_kernel_and_no_temporaries_on_both_renderers() -> None:
    compiled = graphc.compile(chain)
    x = graphc.randn(6, 7, 5)
    assert compiled(x).numpy().tobytes() == chain(x).numpy().tobytes()
    text = compiled.explain(cuda=True)
    assert "1 launch of 1 kernel " in text and "0 temporaries in 0 B" in text
    assert "every producer is fused into its consumer" in text
    (name,) = set(re.findall(r"kernel @(\w+)\(", text))
    assert text.count("stack ") == 0
    assert re.search(rf"__global__ .*{name}\(", text)


def test_every_part_of_the_report_is_there() -> None:
    compiled = graphc.compile(lambda x, w: (x @ w).softmax(1).reshape(-1) * 2.0)
    compiled(graphc.randn(8, 6), graphc.randn(6, 4))
    text = compiled.explain()
    assert "graph @" in text and "test_explain.py:" in text
    assert "bytes moved: " in text and "compile time: " in text
    assert "matmul" in text and "edges through memory" in text


def test_explain_before_a_call_says_so() -> None:
    with pytest.raises(RuntimeError, match=r"explain: nothing is compiled before the first call \(test_explain.py:\d+\)"):
        graphc.compile(chain).explain()


def test_a_program_from_the_cache_is_explained_too() -> None:
    x = graphc.randn(6, 7, 5)
    graphc.compile(chain)(x)
    again = graphc.compile(chain)
    again(x)
    assert again.stats()["cache_hits"] == 1
    assert "1 launch of 1 kernel " in again.explain()
