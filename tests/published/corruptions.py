"""Compares fairtat's corruptions with the libraries that their authors used, pixel by pixel.

    python3 -m venv venv
    venv/bin/pip install imagecorruptions scipy scikit-image opencv-python-headless pillow 'setuptools<81'
    cargo run --release --example corruptions -- --dataset cifar10 --path DIR --npy OUT --count 20
    venv/bin/python tests/published/corruptions.py OUT

The random numbers are those of the program (tests/golden/philox.py), so that even random corruptions can be compared.
`plasma_fractal` and `_motion_blur` are those of the package imagecorruptions, a variant of the authors' code for images
of all sizes; the constants of its corruptions are for ImageNet, so those here are from the authors' script for CIFAR.
`frost` has no counterpart: its statistics are shown beside those of the photos.

Prints for each corruption and severity the share of equal values, of values that differ by at most 1, the largest
difference, and the mean difference. Fails if a share is below its limit.
"""

import io
import sys
import warnings
from pathlib import Path

import cv2
import numpy as np
import scipy.ndimage
import scipy.stats
import skimage.color
import skimage.filters
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "golden"))
from philox import Stream  # noqa: E402

warnings.simplefilter("ignore")
np.float_ = np.float64  # imagecorruptions 1.1.2 is older than NumPy 2.
from imagecorruptions import corruptions as package  # noqa: E402

PURPOSE = 13
NAMES = """gaussian_noise shot_noise impulse_noise defocus_blur glass_blur motion_blur zoom_blur snow frost fog brightness
contrast elastic_transform pixelate jpeg_compression speckle_noise gaussian_blur spatter saturate""".split()
SIDE = 32


class Draws:
    def __init__(self, seed, name, severity, image):
        self.seed, self.image = seed, image
        self.epoch = NAMES.index(name) << 16 | severity << 8

    def part(self, part):
        return Stream(self.seed, PURPOSE, self.epoch | part, self.image)

    def between(self, part, low, high):
        return low + (high - low) * float(self.part(part).unit(1)[0])


def planar(values, shape):
    """Numbers in the order of the planes, for an image with channels last."""
    return values.reshape(shape[2], shape[0], shape[1]).transpose(1, 2, 0)


def smooth(x, sigma, **options):
    return skimage.filters.gaussian(x, sigma=sigma, channel_axis=2 if x.ndim == 3 else None, **options)


def gaussian_noise(x, s, draws):
    x = x / 255.0
    return 255 * (x + [0.04, 0.06, 0.08, 0.09, 0.10][s] * planar(draws.part(0).normal(x.size).astype(float), x.shape))


def speckle_noise(x, s, draws):
    x = x / 255.0
    return 255 * (x + x * [0.06, 0.1, 0.12, 0.16, 0.2][s] * planar(draws.part(0).normal(x.size).astype(float), x.shape))


def shot_noise(x, s, draws):
    c = [500, 250, 100, 75, 50][s]
    uniform = (planar(draws.part(0).words(x.size), x.shape) + 0.5) / 2**32
    return 255 * np.clip(np.maximum(scipy.stats.poisson.ppf(uniform, x / 255.0 * c), 0) / c, 0, 1)


def impulse_noise(x, s, draws):
    flip = planar(draws.part(0).unit(x.size), x.shape) < [0.01, 0.02, 0.03, 0.05, 0.07][s]
    salt = planar(draws.part(1).unit(x.size), x.shape) < 0.5
    return np.where(flip, np.where(salt, 255, 0), x)


def defocus_blur(x, s, draws):
    radius, alias = [(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)][s]
    kernel = package.disk(radius, alias)
    return 255 * np.stack([cv2.filter2D(x[..., c] / 255.0, -1, kernel) for c in range(3)], axis=2)


def glass_blur(x, s, draws):
    sigma, iterations = [(0.05, 1), (0.25, 1), (0.4, 1), (0.25, 2), (0.4, 2)][s]
    x = (smooth(x / 255.0, sigma) * 255).astype(np.uint8)
    for i in range(iterations):
        words = iter(draws.part(i).words(2 * SIDE * SIDE).tolist())
        for h in range(SIDE - 1, 1, -1):
            for w in range(SIDE - 1, 1, -1):
                dx, dy = ((next(words) * 2 >> 32) - 1 for _ in range(2))
                # The authors' statement: a swap to read, a copy to NumPy.
                x[h, w], x[h + dy, w + dx] = x[h + dy, w + dx], x[h, w]
    return 255 * np.clip(smooth(x / 255.0, sigma), 0, 1)


def motion_blur(x, s, draws):
    radius, sigma = [(6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)][s]
    return np.round(package._motion_blur(x, radius, sigma, draws.between(0, -45, 45)))


def clipped_zoom(x, factor):
    n = x.shape[0]
    cut = int(np.ceil(n / factor))
    first = (n - cut) // 2
    x = scipy.ndimage.zoom(x[first : first + cut, first : first + cut], (factor, factor, 1), order=1)
    trim = (x.shape[0] - n) // 2
    return x[trim : trim + n, trim : trim + n]


def zoom_blur(x, s, draws):
    x = (x / 255.0).astype(np.float32)
    factors = np.arange(1, [1.06, 1.11, 1.16, 1.21, 1.26][s], 0.01)
    return 255 * (x + sum(clipped_zoom(x, factor) for factor in factors)) / (len(factors) + 1)


def snow(x, s, draws):
    mean, deviation, zoom, threshold, radius, sigma, keep = [
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ][s]
    x = x.astype(np.float32) / 255.0
    layer = mean + deviation * draws.part(0).normal(SIDE * SIDE).astype(float).reshape(SIDE, SIDE, 1)
    layer = clipped_zoom(layer, zoom)[..., 0]
    layer[layer < threshold] = 0
    layer = (np.clip(layer, 0, 1) * 255).astype(np.uint8)
    layer = np.round(line_blur(layer, radius, sigma, draws.between(1, -135, -45)))[..., None] / 255.0
    grey = cv2.cvtColor(x, cv2.COLOR_RGB2GRAY)[..., None]
    x = keep * x + (1 - keep) * np.maximum(x, grey * 1.5 + 0.5)
    return 255 * (x + layer + np.rot90(layer, k=2))


def line_blur(x, radius, sigma, angle):
    """As `_motion_blur`, which drops the weights of steps beyond the image; ImageMagick repeats the edge."""
    weights = package.getMotionBlurKernel(2 * radius + 1, sigma)
    out = np.zeros(x.shape)
    for i, weight in enumerate(weights):
        dy, dx = (int(np.ceil(i * f(np.deg2rad(angle)) - 0.5)) for f in (np.sin, np.cos))
        rows, columns = (np.clip(np.arange(SIDE) + d, 0, SIDE - 1) for d in (dy, dx))
        out += weight * x[np.ix_(rows, columns)]
    return out


def fog(x, s, draws):
    c, decay = [(0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)][s]
    calls = iter(range(256))

    def uniform(low, high, shape):
        return high * draws.part(next(calls)).symmetric(int(np.prod(shape))).astype(float).reshape(shape)

    original, np.random.uniform = np.random.uniform, uniform
    plasma = package.plasma_fractal(SIDE, decay)
    np.random.uniform = original
    x = x / 255.0
    return 255 * (x + c * plasma[..., None]) * x.max() / (x.max() + c)


def brightness(x, s, draws):
    hsv = skimage.color.rgb2hsv(x / 255.0)
    hsv[..., 2] = np.clip(hsv[..., 2] + [0.05, 0.1, 0.15, 0.2, 0.3][s], 0, 1)
    return 255 * skimage.color.hsv2rgb(hsv)


def saturate(x, s, draws):
    factor, offset = [(0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)][s]
    hsv = skimage.color.rgb2hsv(x / 255.0)
    hsv[..., 1] = np.clip(hsv[..., 1] * factor + offset, 0, 1)
    return 255 * skimage.color.hsv2rgb(hsv)


def contrast(x, s, draws):
    x = x / 255.0
    mean = x.mean((0, 1), keepdims=True)
    return 255 * ((x - mean) * [0.75, 0.5, 0.4, 0.3, 0.15][s] + mean)


def elastic_transform(x, s, draws):
    alpha, sigma, reach = (SIDE * v for v in [(0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)][s])
    x = x.astype(np.float32) / 255.0
    corners = np.float32([[26, 26], [26, 6], [6, 6]])
    moved = corners + (reach * draws.part(0).symmetric(6).astype(float).reshape(3, 2)).astype(np.float32)
    matrix = cv2.getAffineTransform(corners, moved)
    x = cv2.warpAffine(x, matrix, (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT_101)
    right, down = (
        alpha * smooth(draws.part(i).symmetric(SIDE * SIDE).astype(float).reshape(SIDE, SIDE), sigma, mode="reflect", truncate=3)
        for i in (1, 2)
    )
    rows, columns = np.mgrid[:SIDE, :SIDE]
    at = rows + down.astype(np.float32), columns + right.astype(np.float32)
    return 255 * np.stack([scipy.ndimage.map_coordinates(x[..., c], at, order=1, mode="reflect") for c in range(3)], axis=2)


def pixelate(x, s, draws):
    side = int(SIDE * [0.95, 0.9, 0.85, 0.75, 0.65][s])
    return np.asarray(Image.fromarray(x).resize((side, side), Image.BOX).resize((SIDE, SIDE), Image.BOX))


def jpeg_compression(x, s, draws):
    file = io.BytesIO()
    Image.fromarray(x).save(file, "JPEG", quality=[80, 65, 58, 50, 40][s])
    return np.asarray(Image.open(file))


def gaussian_blur(x, s, draws):
    return 255 * smooth(x / 255.0, [0.4, 0.6, 0.7, 0.8, 1][s])


def spatter(x, s, draws):
    mean, deviation, sigma, threshold, strength, mud = [
        (0.62, 0.1, 0.7, 0.7, 0.5, 0),
        (0.65, 0.1, 0.8, 0.7, 0.5, 0),
        (0.65, 0.3, 1, 0.69, 0.5, 0),
        (0.65, 0.1, 0.7, 0.69, 0.6, 1),
        (0.65, 0.1, 0.5, 0.68, 0.6, 1),
    ][s]
    x = x.astype(np.float32) / 255.0
    layer = mean + deviation * draws.part(0).normal(SIDE * SIDE).astype(float).reshape(SIDE, SIDE)
    layer = smooth(layer, sigma)
    layer[layer < threshold] = 0
    if mud:
        mask = smooth((layer > threshold).astype(np.float32), strength)
        mask[mask < 0.8] = 0
        mask = mask[..., None]
        return 255 * (x * (1 - mask) + mask * np.array([63, 42, 20]) / 255.0)
    layer = (layer * 255).astype(np.uint8)
    relief = cv2.distanceTransform(255 - cv2.Canny(layer, 50, 150), cv2.DIST_L2, 5)
    relief = cv2.blur(np.minimum(relief, 20), (3, 3)).astype(np.uint8)
    relief = cv2.filter2D(cv2.equalizeHist(relief), cv2.CV_8U, np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]))
    mask = layer * cv2.blur(relief, (3, 3)).astype(np.float32)
    mask = strength * mask / max(mask.max(), 1e-9)
    return 255 * (x + mask[..., None] * np.array([175, 238, 238]) / 255.0)


# Shares of values that must be equal, and equal up to 1 (a result next to a whole number is truncated up or down).
EQUAL, NEAR = 0.99, 0.999


def show_frost(clean, found):
    for s in range(5):
        added = found[s].astype(float) - [1, 1, 0.9, 0.85, 0.75][s] * clean
        spread = added.mean(3).std((1, 2))
        print(f"frost {s + 1}: added mean {added.mean((0, 1, 2)).round(1)}, deviation within an image {spread.mean():.1f}")
    random = np.random.default_rng(0)
    folder = Path(package.__file__).parent / "frost"
    photos = [cv2.imread(str(folder / f)) for f in ["frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg"]]
    photos = [cv2.resize(photo, (0, 0), fx=0.2, fy=0.2)[..., ::-1] for photo in photos]
    for s in range(5):
        crops = []
        for i in range(1000):
            photo = photos[i % 5]
            y, x = (random.integers(0, photo.shape[axis] - SIDE) for axis in (0, 1))
            keep, strength = [(1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)][s]
            image = clean[i % len(clean)].astype(float)
            out = np.clip(keep * image + strength * photo[y : y + SIDE, x : x + SIDE], 0, 255)
            crops.append(np.floor(out) - keep * image)
        crops = np.stack(crops)
        spread = crops.mean(3).std((1, 2))
        print(f"photos {s + 1}: added mean {crops.mean((0, 1, 2)).round(1)}, deviation within an image {spread.mean():.1f}")


def main():
    folder, seed = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    clean = np.load(folder / "clean.npy")
    failed = []
    for name in NAMES:
        found = np.load(folder / f"{name}.npy").reshape(5, *clean.shape)
        if name == "frost":
            show_frost(clean, found)
            continue
        for s in range(5):
            draws = [Draws(seed, name, s + 1, i) for i in range(len(clean))]
            # What the authors do at the end: clipped, then truncated.
            expected = [np.clip(globals()[name](x, s, d), 0, 255).astype(np.uint8) for x, d in zip(clean, draws)]
            difference = found[s].astype(int) - np.stack(expected)
            equal, near = (difference == 0).mean(), (abs(difference) <= 1).mean()
            print(f"{name} {s + 1}: equal {equal:.4%}, within 1 {near:.4%}, largest {abs(difference).max()}, mean {difference.mean():+.4f}")
            if equal < EQUAL or near < NEAR:
                failed.append(f"{name} {s + 1}")
    if failed:
        sys.exit(f"below the limit: {', '.join(failed)}")


if __name__ == "__main__":
    main()
