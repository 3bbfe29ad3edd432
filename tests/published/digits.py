"""Writes the test images of the data set `digits` as images.npy (uint8, [355, 1, 8, 8]) and labels.npy.

The rule is that of src/data/digits.rs: values of 0 to 16 become bytes, the last fifth of each class is the test part.
"""

import argparse
import sys
from pathlib import Path

import numpy as np


def smartcore(path):
    """Values and labels from smartcore's file: counts of columns and rows, then both as float32."""
    columns, rows = np.fromfile(path, "<u8", 2)
    numbers = np.fromfile(path, "<f4", offset=16)
    columns, rows = int(columns), int(rows)
    assert len(numbers) == rows * (columns + 1), "not a .xy file of smartcore"
    return numbers[: rows * columns].reshape(rows, columns), numbers[rows * columns :].astype(np.int64)


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("out", type=Path, help="folder")
    arguments.add_argument("--source", type=Path, help="smartcore's digits.xy [default: Cargo's registry]")
    arguments = arguments.parse_args()
    found = sorted(Path.home().glob(".cargo/registry/src/*/smartcore-*/src/dataset/digits.xy"))
    source = arguments.source or (found[-1] if found else sys.exit("no smartcore in Cargo's registry: give --source"))
    values, labels = smartcore(source)
    pixels = ((values.astype(np.int64) * 255 + 8) // 16).astype(np.uint8).reshape(-1, 1, 8, 8)
    counts, seen, test = np.bincount(labels), np.zeros(10, dtype=np.int64), []
    for i, label in enumerate(labels):
        seen[label] += 1
        if seen[label] > counts[label] - counts[label] // 5:
            test.append(i)
    arguments.out.mkdir(parents=True, exist_ok=True)
    np.save(arguments.out / "images.npy", pixels[test])
    np.save(arguments.out / "labels.npy", labels[test])
    print(f"{len(test)} images from {source}")


if __name__ == "__main__":
    main()
