"""Maintenance notes made of templates, from a seed: what is it about?"""

import graphs
import numpy as np
import wordpool
from adam import softmax
from files import CLASSIFIER, save_array, save_golden_archive, save_model, save_processing
from recipes import MODELS, SEED

TRAIN, HELDOUT = 2000, 250
CLASSES = ("electrical", "leak", "noise", "routine")
PLACES = ("pump 3", "the aft winch", "generator two", "cooling pump 1", "the bilge pump", "crane B", "the port thruster")
WHEN = ("this morning", "during the night watch", "after start-up", "at full load", "since yesterday", "at 04:30")
WHO = ("second engineer", "the watch", "deck crew", "operator")
PHRASES = {
    "electrical": (
        "{p} tripped its breaker {w}",
        "motor of {p} draws 14 A instead of 9 A, {w}",
        "burnt smell from the terminal box of {p}",
        "earth fault alarm on {p} {w}, reset twice",
        "{p}: contactor does not pull in",
    ),
    "leak": (
        "oil under {p}, seal is wet {w}",
        "{p} loses coolant, about a litre an hour",
        "hydraulic hose of {p} sweats at the fitting",
        "water drips from {p} {w}",
        "shaft seal on {p} leaking again",
    ),
    "noise": (
        "{p} rattles {w}, gets louder with speed",
        "grinding sound from the bearing of {p}",
        "{p} hums and vibrates {w}",
        "squealing belt on {p}, reported by {o}",
        "knocking heard near {p} {w}",
    ),
    "routine": (
        "changed filter on {p}, all fine",
        "greased {p} as planned",
        "{o} checked {p} {w}, no findings",
        "weekly test run of {p} done {w}",
        "oil sample taken from {p}",
    ),
}
ENDINGS = ("", ".", " - please check", ", spare part ordered", " (photo attached)", "; informed {o}")


def notes(rng: np.random.Generator, count: int) -> tuple[list[str], np.ndarray]:
    """So many notes and their classes."""
    pick = lambda choices: choices[rng.integers(len(choices))]  # noqa: E731
    truth = rng.integers(len(CLASSES), size=count)
    texts = []
    for index in truth:
        text = pick(PHRASES[CLASSES[index]]) + pick(ENDINGS)
        text = text.format(p=pick(PLACES), w=pick(WHEN), o=pick(WHO))
        if rng.random() < 0.3:
            text = text.upper() if rng.random() < 0.3 else text.capitalize()
        if rng.random() < 0.1:  # a slip of the finger
            at = int(rng.integers(1, len(text) - 1))
            text = text[:at] + text[at + 1 :]
        texts.append(text)
    return texts, truth


def make():
    folder = MODELS / "notes"
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(SEED)
    (train, train_y), (heldout, truth) = notes(rng, TRAIN), notes(rng, HELDOUT)
    pieces = folder / "tokenizer.json"
    if not pieces.exists():  # its order is chance: weights go with the one that is there
        pieces.write_text(wordpool.tokenizer(train).to_str(pretty=True) + "\n")
    weights = wordpool.train(*wordpool.encoded(pieces, train), train_y, len(CLASSES), SEED)
    ids, mask = wordpool.encoded(pieces, heldout)
    y = wordpool.forward(weights, ids, mask)
    save_model(folder, graphs.pooled_words(weights), {"input_ids": ids, "attention_mask": mask}, y)
    save_golden_archive(folder, {"input_ids": ids, "attention_mask": mask}, {"logits": y.astype(np.float32)})
    pre = {
        "column": "note",
        "max_length": wordpool.LENGTH,
        "pad": "max_length",
        "inputs": {"input_ids": "ids", "attention_mask": "mask"},
    }
    save_processing(folder, "text", pre, CLASSIFIER, CLASSES)
    (folder / "heldout.txt").write_text("".join(f"{text}\n" for text in heldout))
    save_array(folder / "heldout_ids.npy", ids, np.int64)
    save_array(folder / "heldout_y.npy", softmax(y))
    save_array(folder / "heldout_class.npy", y.argmax(axis=1), np.int64)
    print(f"notes: accuracy {np.mean(y.argmax(axis=1) == truth):.4f}")
