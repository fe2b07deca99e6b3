"""Do the committed answers of `tests/models` still hold? Run in a fresh environment, no argument.

ONNX Runtime answers the committed rows again, scikit-learn fits again what is cheap to fit, and
each must agree with the files that the Rust tests believe. One line a check; exits 1 if any fails.
Writes nothing.
"""

import json
import sys

# first: it sees to one thread
from checking import MODELS, answers, array, check, failed, golden, same, softmax, table  # isort: skip

import numpy as np
import raw
import recipes


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


def check_digits_eights():
    model = "digits-eights"
    classes = answers(model, array("digits", "heldout_x")).argmax(axis=1)
    share = np.mean(classes == 8)
    check(f"{model}: a good part are eights", 0.2 <= share <= 0.4, f"{share:.3f}")
    others = classes != 8
    same(f"{model}: the classes of digits elsewhere", classes[others], array("digits", "heldout_class")[others])
    golden(model)


def main():
    parts = (check_digits, check_diabetes, check_cancer, check_digits_bad, check_digits_eights, *raw.PARTS)
    for part in parts:
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
