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


def version() -> str:
    """graphc's version, as installed."""
    try:
        return metadata.version("graphc")
    except metadata.PackageNotFoundError:  # run from a source tree
        return "(not installed)"


def show_info(_: argparse.Namespace) -> int:
    """Print the versions and the processor that compiled code depends on."""
    from llvmlite import binding

    features = binding.get_host_cpu_features()
    wanted = ("sse4.2", "avx", "avx2", "fma", "avx512f", "avx512vl", "neon", "sve")
    lines = {
        "graphc": version(),
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


def verify_bits(given: argparse.Namespace) -> int:
    """Print a table of hashes of a model run in every way; 1 where they differ, 2 where something could not run."""
    from graphc.explain.bits import verify_and_show

    return verify_and_show(given.target, given.threads, given.lanes, given.steps)


def counts(text: str) -> tuple[int, ...]:
    """What ``1,2,3`` means.  Raises ValueError."""
    given = tuple(int(part) for part in text.split(","))
    if min(given) < 1 or len(set(given)) < len(given):
        raise ValueError
    return given


counts.__name__ = "list of different positive integers"  # argparse shows it in its error


def build_parser() -> argparse.ArgumentParser:
    """The parser of all subcommands; each sets ``run``, a function from the parsed arguments to the exit status."""
    parser = argparse.ArgumentParser(prog="graphc", description="A graph compiler for Python.")
    parser.add_argument("--version", action="version", version=f"graphc {version()}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="command")
    info = commands.add_parser("info", help="versions and processor features that compiled code depends on")
    info.set_defaults(run=show_info)
    verify = commands.add_parser("verify", help="check a promise on your own code").add_subparsers(required=True, metavar="what")
    bits = verify.add_parser("bits", help="the same bits eager, compiled and loaded, for any thread count and vector width")
    bits.add_argument("target", metavar="SCRIPT_OR_MODULE", help="a .py file or module with build() (see graphc.explain.bits)")
    bits.add_argument("--threads", type=counts, default=(1, 2, 3), metavar="N,N", help="thread counts (1,2,3)")
    bits.add_argument("--lanes", type=counts, default=(4, 8, 16), metavar="N,N", help="vector widths in elements (4,8,16)")
    bits.add_argument("--steps", type=int, default=3, metavar="N", help="training steps (3)")
    bits.set_defaults(run=verify_bits)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.  `arguments`: without the program's name; None reads ``sys.argv``."""
    parsed = build_parser().parse_args(arguments)
    status: int = parsed.run(parsed)
    return status


if __name__ == "__main__":
    sys.exit(main())
