"""Which rows train, which are held out, and which scikit-learn pipeline is the reference.

Shared by `make.py`, which writes the files, and by `tests/oracles/reference.py`, which doubts them.
Knows nothing of ONNX. The models fitted here have one optimum, so another CPU finds it too.
"""

import one_thread  # noqa: F401, I001  (must come before numpy)

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image
from sklearn import datasets
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

MODELS = Path(__file__).resolve().parent
SEED = 20
GOLDEN_ROWS = 16
DIGITS_UNIT = 16.0  # the largest value of a pixel in the data set
PNG_TO_UNIT = 0.062745098039  # 16 / 255


@dataclass(frozen=True)
class Split:
    """Rows in the data set's own units, and what is true of them."""

    columns: list[str]
    train_x: np.ndarray
    train_y: np.ndarray
    heldout_x: np.ndarray
    heldout_y: np.ndarray


def split(data, columns, heldout, stratify) -> Split:
    train_x, heldout_x, train_y, heldout_y = train_test_split(
        data.data,
        data.target,
        test_size=heldout,
        random_state=SEED,
        stratify=data.target if stratify else None,
    )
    return Split(list(columns), train_x, train_y, heldout_x, heldout_y)


def digits() -> Split:
    columns = [f"p{i}" for i in range(64)]
    return split(datasets.load_digits(), columns, heldout=500, stratify=True)


def diabetes() -> Split:
    data = datasets.load_diabetes(scaled=False)
    return split(data, data.feature_names, heldout=221, stratify=False)


def cancer() -> Split:
    data = datasets.load_breast_cancer()
    return split(data, data.feature_names, heldout=219, stratify=True)


def fit_diabetes(rows: Split) -> Pipeline:
    return fit(rows, Ridge(alpha=1.0, solver="cholesky"))


def fit_cancer(rows: Split) -> Pipeline:
    return fit(rows, LogisticRegression(C=1.0, tol=1e-9, max_iter=10_000))


def fit(rows: Split, model) -> Pipeline:
    pipeline = make_pipeline(SimpleImputer(), StandardScaler(), model)
    return pipeline.fit(rows.train_x, rows.train_y)


def as_images(rows: np.ndarray) -> np.ndarray:
    """Rows of 64 pixels as the CNN's input [N,1,8,8]."""
    return rows.reshape(-1, 1, 8, 8).astype(np.float32)


def pixels_of_digit(file) -> np.ndarray:
    """`digits/pre.json` up to the grey pixels, done by Pillow: grey, resize."""
    return np.asarray(Image.open(file).convert("L").resize((8, 8), Image.Resampling.BILINEAR))


def digit_from_pixels(pixels: np.ndarray) -> np.ndarray:
    """The rest of it: scale."""
    return as_images(pixels.reshape(-1, 64) * PNG_TO_UNIT)


def image_from_png(path: Path) -> np.ndarray:
    return digit_from_pixels(pixels_of_digit(path))


def onnx_answers(model: Path, x: np.ndarray) -> np.ndarray:
    """ONNX Runtime's last output; `x` is the only input, or inputs by name."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    inputs = x if isinstance(x, dict) else {session.get_inputs()[0].name: x}
    return session.run(None, inputs)[-1]
