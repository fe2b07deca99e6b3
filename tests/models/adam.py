"""What the networks written in numpy share: softmax and Adam."""

import numpy as np

BATCH = 64


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def adam(p, gradients_of, count, rng, epochs, rate):
    """Adam over shuffled batches, in place; the rate falls to zero along a cosine."""
    first = {name: np.zeros_like(w) for name, w in p.items()}
    second = {name: np.zeros_like(w) for name, w in p.items()}
    steps = epochs * (count // BATCH)
    step = 0
    while step < steps:
        order = rng.permutation(count)
        for at in range(0, count - BATCH + 1, BATCH):
            now = rate * (1 + np.cos(np.pi * step / steps)) / 2
            step += 1
            for name, g in gradients_of(order[at : at + BATCH]).items():
                first[name] += 0.1 * (g - first[name])
                second[name] += 0.001 * (g * g - second[name])
                size = np.sqrt(second[name] / (1 - 0.999**step)) + 1e-8
                p[name] -= (now * first[name] / (1 - 0.9**step) / size).astype(np.float32)
    return p
