"""Cancer again, by scikit-learn's trees behind a scaler, converted by skl2onnx: raw CSV in, label and chances out."""

import numpy as np
import recipes
from files import save_array, save_golden_archive, save_json
from recipes import MODELS, SEED
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

POST = [{"op": "output", "name": "probabilities"}, {"op": "argmax"}, {"op": "labels"}]


def make_boosting():
    make("cancer-boosting", GradientBoostingClassifier(n_estimators=50, max_depth=2, random_state=SEED))


def make_forest():
    make("cancer-forest", RandomForestClassifier(n_estimators=51, max_depth=6, random_state=SEED))


def make(name, trees):
    folder = MODELS / name
    folder.mkdir(exist_ok=True)
    rows = recipes.cancer()
    # An odd number of trees: none of the rows is a tie.
    # What the device reads is float32: trees must not hang on the digits behind it.
    fitted = make_pipeline(StandardScaler(), trees).fit(rows.train_x.astype(np.float32), rows.train_y)
    x = rows.heldout_x.astype(np.float32)
    options = {id(trees): {"zipmap": False}}
    made = to_onnx(fitted, initial_types=[("features", FloatTensorType([None, x.shape[1]]))], options=options, target_opset={"": 17, "ai.onnx.ml": 3})
    (folder / "model.onnx").write_bytes(made.SerializeToString())
    y = fitted.predict_proba(x)
    answers = recipes.onnx_answers(folder / "model.onnx", x)
    np.testing.assert_allclose(answers, y, rtol=1e-5, atol=1e-5)
    save_golden_archive(folder, {"features": x}, {"label": y.argmax(axis=1), "probabilities": y.astype(np.float32)})
    save_json(folder / "pre.json", {"version": 1, "kind": "tabular", "steps": [{"op": "select", "columns": list(map(str, rows.columns))}]})
    save_json(folder / "post.json", {"version": 1, "steps": POST})
    (folder / "labels.txt").write_text("malignant\nbenign\n")
    save_array(folder / "heldout_y.npy", y)
    save_array(folder / "heldout_class.npy", y.argmax(axis=1), np.int64)
    print(f"{name}: accuracy {np.mean(y.argmax(axis=1) == rows.heldout_y):.4f}")
