"""How the oracle reads the committed files and says what it finds. One line a check."""

import sys
from pathlib import Path

MODELS = Path(__file__).resolve().parent.parent / "models"
sys.dont_write_bytecode = True
sys.path.insert(0, str(MODELS))

import recipes  # noqa: E402, I001  (first: it sees to one thread)
import numpy as np  # noqa: E402

REL, ABS = 1e-4, 1e-5
failed = []


def check(what, holds, detail=""):
    print(f"{'ok  ' if holds else 'FAIL'} {what}{f': {detail}' if detail else ''}")
    if not holds:
        failed.append(what)


def same(what, got, committed):
    """Equal shapes; integers equal, floats close (NaN never is)."""
    got, committed = np.asarray(got), np.asarray(committed)
    if got.shape != committed.shape:
        check(what, False, f"shape {got.shape}, committed {committed.shape}")
        return
    if np.issubdtype(committed.dtype, np.integer):
        differing = int(np.sum(got != committed))
        check(what, differing == 0, f"{differing} of {committed.size} differ")
        return
    apart = np.abs(got - committed)
    holds = bool(np.all(apart <= ABS + REL * np.abs(committed)))
    check(what, holds, f"largest difference {np.max(apart):.1e}")


def array(model, name):
    return np.load(MODELS / model / f"{name}.npy")


def table(model, name):
    """The columns and the rows of a CSV file."""
    path = MODELS / model / f"{name}.csv"
    columns = path.read_text().splitlines()[0].split(",")
    return columns, np.loadtxt(path, delimiter=",", skiprows=1)


def answers(model, x):
    return recipes.onnx_answers(MODELS / model / "model.onnx", x)


def golden(model):
    same(
        f"{model}: ONNX Runtime gives the golden answers",
        answers(model, array(model, "golden_x")),
        array(model, "golden_y"),
    )


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
