"""Raw inputs (files, text, samples, words) to final answers, by Pillow, tokenizers and NumPy alone."""

import csv
import io
import json

import notes
import numpy as np
import pictures
import recipes
import vibration
import wordpool
from checking import MODELS, answers, array, check, golden, same, softmax


def blobs(model):
    content, ends = array(model, "pictures").tobytes(), array(model, "pictures_ends")
    return [io.BytesIO(content[start:end]) for start, end in zip([0, *ends[:-1]], ends)]


def declared(model, name):
    return json.loads((MODELS / model / f"{name}.json").read_text())["steps"]


def check_pictures():
    files = blobs("digits")
    pixels = np.stack([recipes.pixels_of_digit(file) for file in files])
    same("digits: Pillow's pixels of the pictures", pixels, array("digits", "pictures_x"))
    logits = answers("digits", recipes.digit_from_pixels(pixels))
    same("digits: classes of the pictures", logits.argmax(axis=1), array("digits", "pictures_class"))
    made = np.stack([pictures.prepared(file) for file in blobs("pictures")])
    same("pictures: Pillow's and NumPy's pixels", made, array("pictures", "pictures_x"))


def check_notes():
    model = "notes"
    rng = np.random.default_rng(recipes.SEED)
    notes.notes(rng, notes.TRAIN)
    texts, truth = notes.notes(rng, notes.HELDOUT)
    lines = (MODELS / model / "heldout.txt").read_text().splitlines()
    check(f"{model}: the held-out notes are those of the seed", texts == lines)
    ids, mask = wordpool.encoded(MODELS / model / "tokenizer.json", lines)
    same(f"{model}: tokenizers' ids", ids, array(model, "heldout_ids"))
    chances = softmax(answers(model, {"input_ids": ids, "attention_mask": mask}))
    same(f"{model}: ONNX Runtime's chances", chances, array(model, "heldout_y"))
    same(f"{model}: its classes", chances.argmax(axis=1), array(model, "heldout_class"))
    accuracy = np.mean(chances.argmax(axis=1) == truth)
    check(f"{model}: accuracy is at least 0.95", accuracy >= 0.95, f"{accuracy:.4f}")


def samples():
    return np.loadtxt(MODELS / "vibration" / "heldout.csv", delimiter=",", skiprows=1)


def check_vibration():
    model = "vibration"
    same(f"{model}: the samples are those of the seed", vibration.heldout(), samples())
    x = vibration.zscored(vibration.windows(samples(), vibration.STRIDE)).transpose(0, 2, 1)
    chances = softmax(answers(model, x.astype(np.float32)))
    same(f"{model}: ONNX Runtime's chances", chances, array(model, "heldout_y"))
    same(f"{model}: its classes", chances.argmax(axis=1), array(model, "heldout_class"))
    golden(model)


def check_anomalies():
    model = "vibration-anomaly"
    standard = declared(model, "pre")[2]
    cut = (vibration.windows(samples(), vibration.STRIDE) - standard["mean"]) / standard["std"]
    x = vibration.spectra(cut).reshape(len(cut), -1)
    scores = vibration.errors(x, answers(model, x.astype(np.float32)))
    same(f"{model}: reconstruction errors by ONNX Runtime", scores, array(model, "heldout_score"))
    told = array(model, "heldout_score") >= declared(model, "post")[0]["threshold"]
    check(f"{model}: healthy windows are normal, others are not", not told[:69].any() and told[71:].mean() > 0.95)
    golden(model)


def check_forests():
    x = recipes.cancer().heldout_x.astype(np.float32)
    for model in ("cancer-boosting", "cancer-forest"):
        chances = answers(model, x)
        same(f"{model}: ONNX Runtime's chances", chances, array(model, "heldout_y"))
        same(f"{model}: its classes", chances.argmax(axis=1), array(model, "heldout_class"))


def check_pumps():
    model, numbers = "pumps", ("hours", "temperature")
    with open(MODELS / model / "heldout.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    x = {name: np.array([[float(row[name] or "nan")] for row in rows], np.float32) for name in numbers}
    x |= {name: np.array([[row[name]] for row in rows], object) for name in ("maker", "duty")}
    chances = answers(model, x)
    same(f"{model}: ONNX Runtime's chances", chances, array(model, "heldout_y"))
    threshold = declared(model, "post")[1]["value"]
    same(f"{model}: its classes", (chances[:, 1] >= threshold).astype(int), array(model, "heldout_class"))


PARTS = (check_pictures, check_notes, check_vibration, check_anomalies, check_forests, check_pumps)
