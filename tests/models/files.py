"""How the example models are written. Knows nothing of how they came to be."""

import csv
import json

import numpy as np
import onnx
from recipes import GOLDEN_ROWS, onnx_answers

CLASSIFIER = [{"op": "softmax"}, {"op": "argmax"}, {"op": "labels"}]


def save_array(path, array, dtype=np.float32):
    np.save(path, np.ascontiguousarray(array, dtype))


def save_rows(path, columns, rows):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows.tolist())


def save_json(path, value):
    path.write_text(json.dumps(value, indent=1) + "\n")


def save_model(folder, made, x, y):
    """Fails on a graph whose answers, from ONNX Runtime, are not the reference `y`."""
    folder.mkdir(exist_ok=True)
    onnx.save(made, folder / "model.onnx")
    answers = onnx_answers(folder / "model.onnx", x)
    np.testing.assert_allclose(answers, y, rtol=1e-5, atol=1e-5)


def save_blobs(folder, name, blobs):
    """Files one behind the other, and where each ends."""
    save_array(folder / f"{name}.npy", np.frombuffer(b"".join(blobs), np.uint8), np.uint8)
    save_array(folder / f"{name}_ends.npy", np.cumsum([len(blob) for blob in blobs]), np.int64)


def save_golden(folder, x, y):
    save_array(folder / "golden_x.npy", x[:GOLDEN_ROWS])
    save_array(folder / "golden_y.npy", y[:GOLDEN_ROWS])


def save_golden_archive(folder, inputs, outputs):
    """For a model of several inputs or outputs: arrays by their names."""
    arrays = {f"in:{name}": rows for name, rows in inputs.items()} | {f"out:{name}": rows for name, rows in outputs.items()}
    np.savez(folder / "golden.npz", **{name: rows[:GOLDEN_ROWS] for name, rows in arrays.items()})


def save_processing(folder, kind, pre, post, labels=()):
    """`pre` is a list of steps, or the fields of a kind that has none."""
    fields = {"steps": pre} if isinstance(pre, list) else pre
    save_json(folder / "pre.json", {"version": 1, "kind": kind} | fields)
    save_json(folder / "post.json", {"version": 1, "steps": post})
    if labels:
        (folder / "labels.txt").write_text("".join(f"{label}\n" for label in labels))
