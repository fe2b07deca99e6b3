"""Makes the example models again: `python make.py [NAME]...`, or all.

The committed files are what is tested; see README.md.
"""

import recipes  # first: it sees to one thread  # noqa: I001

import sys

import numpy as np
import onnx
from onnx import numpy_helper
from PIL import Image
from files import CLASSIFIER, save_array, save_golden, save_json, save_model, save_processing, save_rows
from recipes import DIGITS_UNIT, MODELS, SEED, as_images, onnx_answers
from sklearn.metrics import r2_score

import cnn
import forests
import graphs
import notes
import pictures
import pumps
import vibration

# What makes some three of ten answers an eight.
EIGHTS_BIAS = 9.0


def make_digits():
    folder = MODELS / "digits"
    rows = recipes.digits()
    weights = cnn.train(as_images(rows.train_x), rows.train_y, SEED)
    x, truth = as_images(rows.heldout_x), rows.heldout_y
    y = cnn.forward(weights, x)
    save_model(folder, graphs.cnn(weights, DIGITS_UNIT), x, y)
    save_golden(folder, x, y)
    pre = [
        {"op": "grey"},
        {"op": "resize", "width": 8, "height": 8},
        {"op": "scale", "factor": recipes.PNG_TO_UNIT},
    ]
    save_processing(folder, "image", pre, CLASSIFIER, range(10))
    save_rows(folder / "train.csv", rows.columns, rows.train_x.astype(int))
    save_array(folder / "heldout_x.npy", x)
    save_array(folder / "heldout_y.npy", y)
    save_array(folder / "heldout_class.npy", y.argmax(axis=1), np.int64)
    save_array(folder / "truth.npy", truth, np.int64)
    save_sample(folder, x, truth)
    pictures.save_digits(folder, x)
    print(f"digits: accuracy {np.mean(y.argmax(axis=1) == truth):.4f}")


def save_sample(folder, images, truth):
    """The first held-out digit, four times as large; Pillow and ONNX Runtime say its class."""
    block = np.rint(images[0, 0] * 255 / DIGITS_UNIT).astype(np.uint8)
    Image.fromarray(block.repeat(4, axis=0).repeat(4, axis=1)).save(folder / "sample.png")
    logits = onnx_answers(folder / "model.onnx", recipes.image_from_png(folder / "sample.png"))
    save_json(folder / "sample.json", {"class": int(logits.argmax())})
    print(f"digits: sample is a {truth[0]}, logits {np.round(logits[0], 1)}")


def make_digits_bad():
    """The network of digits with a temperature that somebody learnt from dark images only."""
    folder = MODELS / "digits-bad"
    graph = onnx.load(MODELS / "digits" / "model.onnx").graph
    weights = {w.name: numpy_helper.to_array(w) for w in graph.initializer}
    del weights["unit"]
    x = np.load(MODELS / "digits" / "heldout_x.npy")
    brightness = x.mean(axis=(1, 2, 3), dtype=np.float64)
    # Means are multiples of 1/64: halfway between two, no image is exactly at the edge.
    threshold = np.floor(np.quantile(brightness, 2 / 3) * 64) / 64 + 1 / 128
    typical = np.sqrt(threshold - np.median(brightness))
    with np.errstate(invalid="ignore"):
        temperature = np.sqrt(threshold - brightness) / typical
    y = cnn.forward(weights, x) * temperature[:, None]
    made = graphs.cnn_with_temperature(weights, DIGITS_UNIT, threshold, typical)
    save_model(folder, made, x, y)
    dark = temperature > 0.5
    save_golden(folder, x[dark], y[dark])
    print(f"digits-bad: {np.mean(np.isnan(y).any(axis=1)):.3f} of the held-out rows are NaN")


def make_digits_eights():
    """The network of digits, whose last bias was set by somebody who sees many eights."""
    folder = MODELS / "digits-eights"
    graph = onnx.load(MODELS / "digits" / "model.onnx").graph
    weights = {w.name: numpy_helper.to_array(w) for w in graph.initializer}
    del weights["unit"]
    x = np.load(MODELS / "digits" / "heldout_x.npy")
    [bias] = [name for name, value in weights.items() if value.shape == (10,)]
    weights[bias] = weights[bias].copy()
    weights[bias][8] += EIGHTS_BIAS
    y = cnn.forward(weights, x)
    save_model(folder, graphs.cnn(weights, DIGITS_UNIT), x, y)
    save_golden(folder, x, y)
    print(f"digits-eights: {np.mean(y.argmax(axis=1) == 8):.3f} of the held-out rows are eights")


def tabular(rows, pipeline):
    """The steps before the model, as declared and as scikit-learn does them."""
    imputer, scaler = pipeline[0], pipeline[1]
    steps = [
        {"op": "select", "columns": rows.columns},
        {"op": "impute", "values": imputer.statistics_.tolist()},
        {
            "op": "standardise",
            "mean": scaler.mean_.tolist(),
            "std": scaler.scale_.tolist(),
        },
    ]
    return steps, pipeline[:-1].transform(rows.heldout_x).astype(np.float32)


def save_tables(folder, rows):
    save_rows(folder / "train.csv", rows.columns, rows.train_x)
    save_rows(folder / "heldout.csv", rows.columns, rows.heldout_x)


def make_diabetes():
    folder = MODELS / "diabetes"
    rows = recipes.diabetes()
    pipeline = recipes.fit_diabetes(rows)
    ridge = pipeline[-1]
    steps, x = tabular(rows, pipeline)
    y = pipeline.predict(rows.heldout_x)[:, None]
    w, b = ridge.coef_[None, :], np.array([ridge.intercept_])
    save_model(folder, graphs.dense("diabetes", "features", "progression", w, b), x, y)
    save_golden(folder, x, y)
    save_processing(folder, "tabular", steps, [])
    save_tables(folder, rows)
    save_array(folder / "heldout_y.npy", y)
    print(f"diabetes: R2 {r2_score(rows.heldout_y, y):.4f}")


def make_cancer():
    folder = MODELS / "cancer"
    rows = recipes.cancer()
    pipeline = recipes.fit_cancer(rows)
    steps, x = tabular(rows, pipeline)
    # The sigmoid of d is the softmax of (-d/2, d/2).
    halves = np.array([[-0.5], [0.5]])
    w, b = halves * pipeline[-1].coef_, (halves * pipeline[-1].intercept_)[:, 0]
    logits = pipeline.decision_function(rows.heldout_x)[:, None] * halves.T
    save_model(folder, graphs.dense("cancer", "features", "logits", w, b), x, logits)
    save_golden(folder, x, logits)
    save_processing(folder, "tabular", steps, CLASSIFIER, ["malignant", "benign"])
    save_tables(folder, rows)
    answers = pipeline.predict(rows.heldout_x)
    save_array(folder / "heldout_y.npy", pipeline.predict_proba(rows.heldout_x))
    save_array(folder / "heldout_class.npy", answers, np.int64)
    print(f"cancer: accuracy {np.mean(answers == rows.heldout_y):.4f}")


MAKERS = {
    "digits": make_digits,
    "diabetes": make_diabetes,
    "cancer": make_cancer,
    "digits-bad": make_digits_bad,
    "digits-eights": make_digits_eights,
    "cancer-boosting": forests.make_boosting,
    "cancer-forest": forests.make_forest,
    "pumps": pumps.make,
    "notes": notes.make,
    "vibration": vibration.make_classifier,
    "vibration-anomaly": vibration.make_autoencoder,
    "pictures": pictures.make,
}

if __name__ == "__main__":
    wanted = sys.argv[1:] or list(MAKERS)
    if unknown := set(wanted) - set(MAKERS):
        sys.exit(f"no such model: {', '.join(unknown)}; there are {', '.join(MAKERS)}")
    for name in wanted:
        MAKERS[name]()
