"""Read digits with a saved program, in a process that knows nothing of the model: ``digits_predict.py PROGRAM SCANS LOGITS``.

PROGRAM: what `examples/digits.py` saved.   SCANS: a .npy file, float32 [n, 64].   LOGITS: the .npy file to write, float32 [n, 10].
"""

from __future__ import annotations

import sys

import numpy as np

import graphc


def main(program: str, scans: str, logits: str) -> None:
    """Load, run, save."""
    read = graphc.load(program)
    scores = read(graphc.from_numpy(np.load(scans)))
    np.save(logits, scores.numpy())
    print(f"{len(scores)} scans read; the first ten as {scores.argmax(dim=1)[:10].tolist()}")


if __name__ == "__main__":
    main(*sys.argv[1:])
