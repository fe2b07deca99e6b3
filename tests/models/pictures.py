"""Raw pictures as files: held-out digits as PNG and JPEG, and small photos for every image step.

What becomes of them is said by Pillow and NumPy alone.
"""

import io

import graphs
import numpy as np
import recipes
from files import save_array, save_blobs, save_golden, save_model, save_processing
from PIL import Image, ImageOps
from recipes import DIGITS_UNIT, MODELS, SEED

PNGS, JPEGS, PHOTOS = 220, 60, 48
MEAN, STD = (0.406, 0.456, 0.485), (0.225, 0.224, 0.229)  # in the order of the model: blue, green, red
ORIENTATION = 0x0112


def encoded(picture: Image.Image, **how) -> bytes:
    file = io.BytesIO()
    picture.save(file, **how)
    return file.getvalue()


def digit(rng, image: np.ndarray) -> Image.Image:
    """A digit at some size, as dark strokes would be photographed: tinted, a little noisy."""
    size = (int(rng.integers(16, 40)), int(rng.integers(16, 40)))
    grey = Image.fromarray(np.rint(image * 255 / DIGITS_UNIT).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    if rng.random() < 0.5:
        return grey
    tint = rng.uniform(0.9, 1.0, 3)
    return Image.fromarray(np.rint(np.asarray(grey)[..., None] * tint).astype(np.uint8))


def save_digits(folder, images):
    rng = np.random.default_rng(SEED)
    digits = [digit(rng, image[0]) for image in images[: PNGS + JPEGS]]
    blobs = [encoded(one, format="PNG", optimize=True) for one in digits[:PNGS]]
    blobs += [encoded(one, format="JPEG", quality=int(rng.integers(75, 96))) for one in digits[PNGS:]]
    save_blobs(folder, "pictures", blobs)
    pixels = np.stack([recipes.pixels_of_digit(io.BytesIO(blob)) for blob in blobs])
    save_array(folder / "pictures_x.npy", pixels, np.uint8)
    logits = recipes.onnx_answers(folder / "model.onnx", recipes.digit_from_pixels(pixels))
    save_array(folder / "pictures_class.npy", logits.argmax(axis=1), np.int64)
    top = np.sort(logits, axis=1)
    print(f"digits: pictures agree with the plain images on "
          f"{np.mean(logits.argmax(axis=1) == recipes.onnx_answers(folder / 'model.onnx', images[: len(blobs)]).argmax(axis=1)):.3f}, "
          f"closest call {np.min(top[:, -1] - top[:, -2]):.2f}")


def photo(rng) -> Image.Image:
    """Soft shapes of colour."""
    low = rng.integers(0, 256, (int(rng.integers(3, 7)), int(rng.integers(3, 7)), 3)).astype(np.uint8)
    return Image.fromarray(low).resize((int(rng.integers(40, 90)), int(rng.integers(40, 90))), Image.Resampling.BICUBIC)


def photo_file(rng, number) -> bytes:
    picture = photo(rng)
    kind = number % 4
    if kind == 0:
        return encoded(picture, format="PNG", optimize=True)
    if kind == 1:
        picture.putalpha(Image.fromarray(rng.integers(0, 256, picture.size[::-1]).astype(np.uint8) // 128 * 128))
        return encoded(picture.quantize(32) if number % 8 == 1 else picture, format="PNG", optimize=True)
    exif = Image.Exif()
    exif[ORIENTATION] = 1 + number // 4 % 8
    return encoded(picture, format="JPEG", quality=85, exif=exif, subsampling=0 if kind == 2 else 2)


def prepared(file) -> np.ndarray:
    """What `pictures/pre.json` declares: [16, 16, 3]."""
    upright = ImageOps.exif_transpose(Image.open(file)).convert("RGB")
    small = upright.resize((22, 18), Image.Resampling.BILINEAR)
    middle = small.crop((3, 1, 19, 17))
    bgr = np.asarray(middle)[..., ::-1] * (1 / 255)
    return ((bgr - MEAN) / STD).astype(np.float32)


def make():
    folder = MODELS / "pictures"
    rng = np.random.default_rng(SEED)
    blobs = [photo_file(rng, number) for number in range(PHOTOS)]
    x = np.stack([prepared(io.BytesIO(blob)) for blob in blobs])
    save_model(folder, graphs.identity("pictures", ["N", 16, 16, 3]), x, x)
    save_golden(folder, x[:4], x[:4])
    pre = [
        {"op": "orient"},
        {"op": "resize", "width": 22, "height": 18},
        {"op": "crop", "width": 16, "height": 16},
        {"op": "channels", "order": "bgr"},
        {"op": "scale", "factor": 1 / 255},
        {"op": "normalise", "mean": list(MEAN), "std": list(STD)},
        {"op": "layout", "order": "nhwc"},
    ]
    save_processing(folder, "image", pre, [])
    save_blobs(folder, "pictures", blobs)
    save_array(folder / "pictures_x.npy", x)
    print(f"pictures: {len(blobs)} files")
