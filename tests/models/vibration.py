"""Vibration of a made-up pump: three axes at 1 kHz, from a seed.

Healthy, with a worn bearing (a high tone in bursts), or out of balance (the speed's own tone grows).
"""

import conv1d
import graphs
import numpy as np
from adam import softmax
from files import CLASSIFIER, save_array, save_golden, save_model, save_processing, save_rows
from recipes import MODELS, SEED
from sklearn.neural_network import MLPRegressor

RATE, LENGTH, CHANNELS = 1000.0, 128, 3
STRIDE = 64
UNIT = 20.0  # the size of a spectrum's values
AXES = ("x", "y", "z")
STATES = ("healthy", "bearing", "imbalance")


def recording(rng: np.random.Generator, state: str, times: int) -> np.ndarray:
    """Samples [times, 3] in m/s2, rounded to 4 digits as a logger would."""
    t = np.arange(times) / RATE
    speed = rng.uniform(45, 55)
    gain = np.array([1.0, 0.6, 0.3]) * rng.uniform(0.8, 1.2)
    turn = np.sin(2 * np.pi * speed * t + rng.uniform(0, 2 * np.pi))
    second = np.sin(4 * np.pi * speed * t + rng.uniform(0, 2 * np.pi))
    samples = (turn + 0.4 * second)[:, None] * gain
    if state == "imbalance":
        samples += turn[:, None] * rng.uniform(1.2, 2.0) * np.array([0.7, 1.0, 0.2])
    if state == "bearing":
        bursts = np.maximum(0, np.sin(2 * np.pi * 3.6 * speed * t)) ** 8
        ring = np.sin(2 * np.pi * rng.uniform(330, 390) * t)
        samples += (bursts * ring)[:, None] * rng.uniform(1.5, 2.5) * np.array([0.5, 0.4, 1.0])
    samples += rng.normal(0, 0.25, samples.shape)
    return np.round(samples + np.array([0.0, 0.0, 9.81]), 4)


def windows(samples: np.ndarray, stride: int) -> np.ndarray:
    """[N, LENGTH, 3]: every whole window."""
    starts = range(0, len(samples) - LENGTH + 1, stride)
    return np.stack([samples[start : start + LENGTH] for start in starts])


def zscored(x: np.ndarray) -> np.ndarray:
    """Each channel of each window by its own mean and standard deviation."""
    return (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True)


def spectra(x: np.ndarray) -> np.ndarray:
    """Magnitudes [N, LENGTH // 2 + 1, 3] under numpy.hanning."""
    return np.abs(np.fft.rfft(x * np.hanning(LENGTH)[:, None], axis=1))


def training(rng, states, recordings):
    """Windows of many short recordings, and the state of each."""
    parts = [(windows(recording(rng, state, 4 * LENGTH), STRIDE), state) for _ in range(recordings) for state in states]
    truth = np.concatenate([np.full(len(x), STATES.index(state)) for x, state in parts])
    return np.concatenate([x for x, _ in parts]), truth


def heldout() -> np.ndarray:
    """One recording in which every state has its time, one after the other."""
    rng = np.random.default_rng(SEED + 1)
    return np.concatenate([recording(rng, state, 4480) for state in STATES])


def make_classifier():
    folder = MODELS / "vibration"
    x, truth = training(np.random.default_rng(SEED), STATES, 60)
    weights = conv1d.train(zscored(x).transpose(0, 2, 1).astype(np.float32), truth, len(STATES), SEED)
    samples = heldout()
    x = zscored(windows(samples, STRIDE)).transpose(0, 2, 1)
    y = conv1d.forward(weights, x.astype(np.float32))
    made = graphs.conv1d(weights, CHANNELS, LENGTH, conv1d.STRIDE)
    save_model(folder, made, x.astype(np.float32), y)
    save_golden(folder, x, y)
    pre = [
        {"op": "select", "columns": list(AXES)},
        {"op": "window", "length": LENGTH, "stride": STRIDE},
        {"op": "zscore"},
        {"op": "layout", "order": "nct"},
    ]
    save_processing(folder, "series", pre, CLASSIFIER, STATES)
    save_rows(folder / "heldout.csv", AXES, samples)
    save_array(folder / "heldout_y.npy", softmax(y))
    save_array(folder / "heldout_class.npy", y.argmax(axis=1), np.int64)
    middle = np.arange(len(y)) * STRIDE + LENGTH // 2
    print(f"vibration: accuracy {np.mean(y.argmax(axis=1) == middle // 4480):.4f} of {len(y)} windows")


def make_autoencoder():
    folder = MODELS / "vibration-anomaly"
    raw, _ = training(np.random.default_rng(SEED + 2), STATES[:1], 150)
    mean, std = raw.mean(axis=(0, 1)), raw.std(axis=(0, 1))
    flat = lambda raw: spectra((raw - mean) / std).reshape(len(raw), -1)  # noqa: E731
    x = flat(raw)
    net = MLPRegressor(hidden_layer_sizes=(32, 8, 32), random_state=SEED, max_iter=400, alpha=1e-3)
    net.fit(x / UNIT, x / UNIT)
    pairs = [(w.astype(np.float32), b.astype(np.float32)) for w, b in zip(net.coefs_, net.intercepts_)]
    pairs[0] = (pairs[0][0] / np.float32(UNIT), pairs[0][1])
    pairs[-1] = (pairs[-1][0] * np.float32(UNIT), pairs[-1][1] * np.float32(UNIT))
    threshold = float(np.quantile(errors(x, through(pairs, x)), 0.99))
    samples = np.loadtxt(MODELS / "vibration" / "heldout.csv", delimiter=",", skiprows=1)
    x = flat(windows(samples, STRIDE))
    y = through(pairs, x)
    save_model(folder, graphs.layers("vibration-anomaly", "spectrum", "again", pairs), x.astype(np.float32), y)
    save_golden(folder, x, y)
    pre = [
        {"op": "select", "columns": list(AXES)},
        {"op": "window", "length": LENGTH, "stride": STRIDE},
        {"op": "standardise", "mean": mean.tolist(), "std": std.tolist()},
        {"op": "fft", "taper": "hanning"},
        {"op": "layout", "order": "flat"},
    ]
    save_processing(folder, "series", pre, [{"op": "anomaly", "error": "squared", "threshold": threshold}])
    scores = errors(x, y)
    save_array(folder / "heldout_score.npy", scores, np.float64)
    middle = (np.arange(len(y)) * STRIDE + LENGTH // 2) // 4480
    told = [f"{state} {np.mean(scores[middle == i] >= threshold):.3f}" for i, state in enumerate(STATES)]
    print(f"vibration-anomaly: told as anomalies: {', '.join(told)}; nearest to the threshold "
          f"{np.min(np.abs(scores / threshold - 1)):.1e}")


def through(pairs, x):
    """The layers in float64."""
    for i, (w, b) in enumerate(pairs):
        x = x @ w.astype(np.float64) + b
        x = np.maximum(x, 0) if i < len(pairs) - 1 else x
    return x


def errors(x, y):
    return ((x - y) ** 2).mean(axis=1)
