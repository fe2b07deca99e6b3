"""Do the committed answers of `tests/models` still hold? Run in a fresh environment, no argument.

ONNX Runtime answers the committed rows again, scikit-learn fits again what is cheap to fit, and
each must agree with the files that the Rust tests believe. One line a check; exits 1 if any fails.
Writes nothing.
"""

import json
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


def prepared(model):
    """heldout.csv as pre.json says, without scikit-learn."""
    columns, rows = table(model, "heldout")
    steps = json.loads((MODELS / model / "pre.json").read_text())["steps"]
    select, impute, standard = steps
    rows = rows[:, [columns.index(name) for name in select["columns"]]]
    rows = np.where(np.isnan(rows), impute["values"], rows)
    return ((rows - standard["mean"]) / standard["std"]).astype(np.float32)


def check_table(model, name, columns, rows):
    header, committed = table(model, name)
    check(f"{model}: {name}.csv has the data set's columns", header == list(columns))
    same(f"{model}: {name}.csv has the data set's rows", rows, committed)


def check_digits():
    rows, model = recipes.digits(), "digits"
    x, truth = array(model, "heldout_x"), array(model, "truth")
    classes = array(model, "heldout_class")
    check_table(model, "train", rows.columns, rows.train_x)
    same(f"{model}: held-out rows", recipes.as_images(rows.heldout_x), x)
    same(f"{model}: true classes", rows.heldout_y, truth)
    logits = answers(model, x)
    same(f"{model}: ONNX Runtime's logits", logits, array(model, "heldout_y"))
    same(f"{model}: ONNX Runtime's classes", logits.argmax(axis=1), classes)
    accuracy = np.mean(classes == truth)
    check(f"{model}: accuracy is at least 0.97", accuracy >= 0.97, f"{accuracy:.4f}")
    sample = answers(model, recipes.image_from_png(MODELS / model / "sample.png"))
    said = json.loads((MODELS / model / "sample.json").read_text())["class"]
    same(f"{model}: class of sample.png", sample.argmax(), said)
    golden(model)


def check_diabetes():
    rows, model = recipes.diabetes(), "diabetes"
    y = array(model, "heldout_y")
    check_table(model, "train", rows.columns, rows.train_x)
    check_table(model, "heldout", rows.columns, rows.heldout_x)
    refitted = recipes.fit_diabetes(rows).predict(rows.heldout_x)[:, None]
    same(f"{model}: scikit-learn, fitted again", refitted, y)
    same(f"{model}: ONNX Runtime after pre.json", answers(model, prepared(model)), y)
    golden(model)


def check_cancer():
    rows, model = recipes.cancer(), "cancer"
    y, classes = array(model, "heldout_y"), array(model, "heldout_class")
    check_table(model, "train", rows.columns, rows.train_x)
    check_table(model, "heldout", rows.columns, rows.heldout_x)
    refitted = recipes.fit_cancer(rows)
    same(f"{model}: scikit-learn, fitted again", refitted.predict_proba(rows.heldout_x), y)
    same(f"{model}: its classes", refitted.predict(rows.heldout_x), classes)
    chances = softmax(answers(model, prepared(model)))
    same(f"{model}: ONNX Runtime after pre.json", chances, y)
    same(f"{model}: ONNX Runtime's classes", chances.argmax(axis=1), classes)
    accuracy = np.mean(classes == rows.heldout_y)
    check(f"{model}: accuracy is at least 0.95", accuracy >= 0.95, f"{accuracy:.4f}")
    golden(model)


def check_digits_bad():
    model = "digits-bad"
    logits = answers(model, array("digits", "heldout_x"))
    broken = ~np.isfinite(logits).all(axis=1)
    share = np.mean(broken)
    check(f"{model}: a third is not finite", 0.3 <= share <= 0.37, f"{share:.3f}")
    same(
        f"{model}: the classes of digits elsewhere",
        logits[~broken].argmax(axis=1),
        array("digits", "heldout_class")[~broken],
    )
    golden(model)


def main():
    for part in (check_digits, check_diabetes, check_cancer, check_digits_bad):
        try:
            part()
        except (OSError, ValueError, KeyError) as error:
            check(f"{part.__name__} could run", False, error)
    if failed:
        sys.exit(
            f"{len(failed)} committed answers no longer hold. If the models were meant to change, "
            "run tests/models/make.py and commit what it writes; if not, find out what did."
        )


if __name__ == "__main__":
    main()
