"""Assembling and linking: code finds its constants and libm, errors carry LLVM's words, concurrent use is safe."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from graphc.errors import IRError
from graphc.runtime import link


def test_linked_code_reaches_its_constants_and_libm() -> None:
    text = """
    @table = internal constant [4 x float] [float 1.0, float 2.0, float 3.0, float 4.0]
    declare float @sqrtf(float)
    define float @f(float %x, i64 %i) {
      %slot = alloca float
      store float %x, ptr %slot
      %same = load float, ptr %slot
      %root = call float @sqrtf(float %same)
      %at = getelementptr float, ptr @table, i64 %i
      %y = load float, ptr %at
      %z = fadd float %root, %y
      ret float %z
    }"""
    prototype = ctypes.CFUNCTYPE(ctypes.c_float, ctypes.c_float, ctypes.c_int64)
    for optimise in (0, 1, 2):
        code = link.assemble(text, optimise=optimise)
        assert [prototype(link.link(code, ["f"])["f"])(9.0, i) for i in range(4)] == [4.0, 5.0, 6.0, 7.0]


def test_refused_text_and_missing_symbols_raise() -> None:
    with pytest.raises(IRError, match=r"(?s)LLVM refused a module: .*expected type"):
        link.assemble("define foo")
    with pytest.raises(RuntimeError, match="missing_function"):
        link.link(link.assemble("define void @f() { ret void }"), ["missing_function"])


def test_named_features_do_not_depend_on_this_machine() -> None:
    if platform.machine() != "x86_64":
        pytest.skip("x86 features")
    text = """
    define void @f(ptr %p) {
      %x = load <8 x float>, ptr %p, align 4
      %y = fadd <8 x float> %x, %x
      store <8 x float> %y, ptr %p, align 4
      ret void
    }"""
    assert link.assemble(text, features="+sse2") != link.assemble(text, features="+avx2")
    assert link.assemble(text, features="+avx2") == link.assemble(text, features="+avx2")


def test_several_python_threads_assemble_and_link_at_once() -> None:
    prototype = ctypes.CFUNCTYPE(ctypes.c_int64)

    def make(number: int) -> int:
        code = link.assemble(f"define i64 @f() {{ ret i64 {number} }}")
        return int(prototype(link.link(code, ["f"])["f"])())

    with ThreadPoolExecutor(4) as executor:
        assert list(executor.map(make, range(24))) == list(range(24))


def test_signature_names_what_code_depends_on() -> None:
    import llvmlite

    signature = link.machine_signature()
    assert f"llvmlite {llvmlite.__version__}" in signature
    assert platform.machine().replace("AMD64", "x86_64") in signature
    assert signature == link.machine_signature()


CODE = """
import ctypes
from pathlib import Path
from graphc.runtime.link import assemble, link

TEXT = '''
@table = private constant [4 x double] [double 1.0, double 2.0, double 3.0, double 4.0]
define double @entry(i64 %i) {
  %p = getelementptr [4 x double], ptr @table, i64 0, i64 %i
  %v = load double, ptr %p
  ret double %v
}
'''

def regions():
    return len(Path("/proc/self/maps").read_text().splitlines())

code = assemble(TEXT)
link(code, ["entry"])
before = regions()
addresses = [link(code, ["entry"])["entry"] for _ in range(640)]
assert [ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_int64)(a)(3) for a in addresses] == [4.0] * 640
print(regions() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the regions of a process")
def test_many_programs_take_few_regions_of_memory() -> None:
    """Two each, unmerged: 65,530 are allowed, and LLVM's linker ends a process that needs more."""
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=120, check=True)
    assert int(done.stdout) < 320, done.stdout
