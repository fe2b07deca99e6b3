"""Does python-tuf believe the same chains of roots as `petrel-trust`?

    cargo run -p petrel-trust --example root_chains -- 500 | python tests/oracles/root_chains.py

Each chain is offered step by step to python-tuf's TrustedMetadataSet; every step must be taken or
refused by both, and both must reach the same version and agree on whether it has expired. Prints
one line, and one for each difference; exits 1 if there is any.
"""

import json
import sys
from collections import Counter
from datetime import datetime

from tuf.api.exceptions import RepositoryError
from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet
from tuf.ngclient.config import EnvelopeType


def follow(chain, now):
    """The verdict on each step, the version reached, and whether it has expired."""
    encoded = lambda document: json.dumps(document).encode()  # noqa: E731
    trusted = TrustedMetadataSet(encoded(chain["first"]), EnvelopeType.METADATA)
    verdicts = []
    for step in chain["steps"]:
        try:
            trusted.update_root(encoded(step["tuf"]))
            verdicts.append(True)
        except RepositoryError:
            verdicts.append(False)
    return verdicts, trusted.root.version, trusted.root.is_expired(now)


def main():
    told = json.load(sys.stdin)
    now = datetime.fromisoformat(told["now"].replace("Z", "+00:00"))
    different, steps, hows = 0, 0, Counter()
    for chain in told["chains"]:
        ours = [step["taken"] for step in chain["steps"]], chain["version"], chain["expired"]
        theirs = follow(chain, now)
        steps += len(chain["steps"])
        hows.update(step["how"] for step in chain["steps"])
        if ours != theirs:
            different += 1
            shown = [(s["how"], s["code"]) for s in chain["steps"]]
            print(f"FAIL seed {chain['seed']}: ours {ours}, python-tuf {theirs}: {shown}")
    taken = sum(step["taken"] for chain in told["chains"] for step in chain["steps"])
    expired = sum(chain["expired"] for chain in told["chains"])
    print(f"{len(told['chains'])} chains, {steps} roots offered, {taken} taken, {expired} ended expired, {different} different verdicts")
    print(", ".join(f"{how}: {n}" for how, n in sorted(hows.items())))
    enough = len(told["chains"]) > 0 and taken > 0 and 0 < expired < len(told["chains"])
    sys.exit(0 if different == 0 and enough else 1)


main()
