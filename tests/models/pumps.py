"""Made-up pumps, from a seed: does one need service soon? Numbers with gaps, words, several inputs of one model.

A scikit-learn ColumnTransformer, converted by skl2onnx, takes each column as an input of its own.
"""

import csv

import numpy as np
import onnxruntime
import pandas
from files import save_array, save_golden_archive, save_json
from recipes import MODELS, SEED
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

TRAIN, HELDOUT = 800, 240
NUMBERS, WORDS = ["hours", "temperature"], ["maker", "duty"]
MAKERS, DUTIES = ["Alweiler", "Desmi", "Iron Pump"], ["cooling", "bilge", "fuel"]


def pumps(rng: np.random.Generator, count: int) -> tuple[pandas.DataFrame, np.ndarray]:
    frame = pandas.DataFrame({
        "hours": rng.integers(0, 20_000, count).astype(np.float32),
        "temperature": np.round(rng.normal(55, 12, count), 1).astype(np.float32),
        "maker": rng.choice(MAKERS, count),
        "duty": rng.choice(DUTIES, count),
    })
    wear = frame["hours"] / 20_000 + (frame["temperature"] - 55) / 40 + 0.3 * (frame["duty"] == "bilge")
    truth = (wear + rng.normal(0, 0.1, count) > 0.7).to_numpy().astype(np.int64)
    frame.loc[rng.random(count) < 0.1, "temperature"] = np.nan
    return frame, truth


def make():
    folder = MODELS / "pumps"
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(SEED)
    (train, train_y), (heldout, truth) = pumps(rng, TRAIN), pumps(rng, HELDOUT)
    heldout.loc[::40, "maker"] = "Unheard-of"
    columns = ColumnTransformer([
        ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), NUMBERS),
        ("words", OneHotEncoder(handle_unknown="ignore", sparse_output=False), WORDS),
    ])
    last = LogisticRegression()
    fitted = make_pipeline(columns, last).fit(train, train_y)
    kinds = [(name, FloatTensorType([None, 1])) for name in NUMBERS]
    kinds += [(name, StringTensorType([None, 1])) for name in WORDS]
    opset = {"": 17, "ai.onnx.ml": 3}
    made = to_onnx(fitted, initial_types=kinds, options={id(last): {"zipmap": False}}, target_opset=opset)
    (folder / "model.onnx").write_bytes(made.SerializeToString())
    y = fitted.predict_proba(heldout)
    x = {name: heldout[[name]].to_numpy(np.float32 if name in NUMBERS else object) for name in NUMBERS + WORDS}
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, x)[-1], y, rtol=1e-5, atol=1e-5)
    words = {name: heldout[[name]].to_numpy(np.str_) for name in WORDS}
    save_golden_archive(folder, x | words, {"label": y.argmax(axis=1), "probabilities": y.astype(np.float32)})
    steps = [{"op": "output", "name": "probabilities"}, {"op": "threshold", "value": 0.4}, {"op": "labels"}]
    save_json(folder / "post.json", {"version": 1, "steps": steps})
    (folder / "labels.txt").write_text("fine\nservice soon\n")
    # One column more than the model takes, and another order: columns are found by name.
    table = heldout.assign(number=np.arange(len(heldout)))[["duty", "number", *NUMBERS, "maker"]]
    table.to_csv(folder / "heldout.csv", index=False, quoting=csv.QUOTE_MINIMAL, lineterminator="\n")
    save_array(folder / "heldout_y.npy", y)
    save_array(folder / "heldout_class.npy", y[:, 1] >= 0.4, np.int64)
    print(f"pumps: accuracy {np.mean((y[:, 1] >= 0.4) == truth):.4f}, nearest to the threshold {np.min(np.abs(y[:, 1] - 0.4)):.1e}")
