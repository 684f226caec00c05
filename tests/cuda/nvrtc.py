"""NVRTC from the package nvidia-cuda-nvrtc, called directly: it needs neither a driver nor a device."""

from __future__ import annotations

import ctypes
from importlib import metadata
from pathlib import Path

from cuda.absent import absent

_NAME = "nvidia-cuda-nvrtc"


def load() -> ctypes.CDLL:
    """The library; ends the test where the package is not installed."""
    try:
        files = metadata.files(_NAME)
    except metadata.PackageNotFoundError:
        absent(_NAME, "it compiles rendered CUDA for devices")
    assert files is not None
    paths = [Path(str(file.locate())) for file in files if file.name.startswith("libnvrtc.so")]
    library = ctypes.CDLL(str(paths[0]))
    library.nvrtcGetErrorString.restype = ctypes.c_char_p
    return library


class Nvrtc:
    """One compilation at a time of a CUDA C++ source."""

    def __init__(self) -> None:
        self.nvrtc = load()

    def _call(self, function: str, *args: object) -> None:
        code = getattr(self.nvrtc, function)(*args)
        if code:
            raise RuntimeError(f"{function}: {self.nvrtc.nvrtcGetErrorString(code).decode()}")

    def _read(self, program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        self._call(f"nvrtcGet{what}Size", program, ctypes.byref(size))
        text = ctypes.create_string_buffer(size.value)
        self._call(f"nvrtcGet{what}", program, text)
        return text.raw

    def compile(self, source: str, architecture: str, options: tuple[str, ...], result: str = "CUBIN") -> tuple[bytes, str]:
        """(cubin or, with result="PTX", its text; what the compiler said).

        Raises RuntimeError with the log if it fails.
        """
        program = ctypes.c_void_p()
        self._call("nvrtcCreateProgram", ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None)
        arguments = [f"-arch={architecture}".encode(), *(option.encode() for option in options)]
        pointers = (ctypes.c_char_p * len(arguments))(*arguments)
        try:
            code = self.nvrtc.nvrtcCompileProgram(program, len(arguments), pointers)
            log = self._read(program, "ProgramLog").rstrip(b"\0").decode()
            if code:
                raise RuntimeError(f"nvrtc for {architecture}: {log[:4000]}")
            return self._read(program, result), log
        finally:
            self._call("nvrtcDestroyProgram", ctypes.byref(program))
