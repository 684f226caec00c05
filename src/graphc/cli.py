"""The ``graphc`` command.

Enters: command-line arguments.  Leaves: text on standard output and an exit status.  Never here: anything a library
user could not call from Python.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Sequence
from importlib import metadata


def show_info(_: argparse.Namespace) -> int:
    """Print the versions and the processor that compiled code depends on."""
    from llvmlite import binding

    features = binding.get_host_cpu_features()
    wanted = ("sse4.2", "avx", "avx2", "fma", "avx512f", "avx512vl", "neon", "sve")
    lines = {
        "graphc": metadata.version("graphc"),
        "python": platform.python_version(),
        "numpy": metadata.version("numpy"),
        "llvmlite": metadata.version("llvmlite"),
        "llvm": ".".join(map(str, binding.llvm_version_info)),
        "processor": binding.get_host_cpu_name(),
        "features": " ".join(name for name in wanted if features.get(name)) or "none of those graphc looks for",
    }
    for name, text in lines.items():
        print(f"{name:<10} {text}")
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The parser of all subcommands; each sets ``run``, a function from the parsed arguments to the exit status."""
    parser = argparse.ArgumentParser(prog="graphc", description="A graph compiler for Python.")
    parser.add_argument("--version", action="version", version=f"graphc {metadata.version('graphc')}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="command")
    info = commands.add_parser("info", help="versions and processor features that compiled code depends on")
    info.set_defaults(run=show_info)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.  `arguments`: without the program's name; None reads ``sys.argv``."""
    parsed = build_parser().parse_args(arguments)
    status: int = parsed.run(parsed)
    return status


if __name__ == "__main__":
    sys.exit(main())
