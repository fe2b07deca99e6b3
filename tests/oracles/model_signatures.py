"""Does the OpenSSF tool `model_signing` agree with `petrel-trust` on `model.sig`, both ways?

    python tests/oracles/model_signatures.py target/debug/examples/model_signatures [N]

N bundles of ours must verify with the tool and with us; each with one thing changed must be
refused by both; and N folders that the tool signed must verify with us. Prints one line, and one
for each difference; exits 1 if there is any.
"""

import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from model_signing import hashing, signing, verifying

IGNORED = [".git", ".gitattributes", ".github", ".gitignore", "bundle.dsse.json", "model.sig"]


def hasher(folder):
    """As the tool's own command has it."""
    paths = [folder / "model.sig", folder / "bundle.dsse.json"]
    return hashing.Config().set_ignored_paths(paths=paths, ignore_git_paths=True).set_allow_symlinks(False)


def tool_accepts(folder, key):
    try:
        config = verifying.Config().use_elliptic_key_verifier(public_key=key).set_hashing_config(hasher(folder))
        config.verify(folder, folder / "model.sig")
        return True
    except Exception:  # noqa: BLE001  (the tool refuses with many types)
        return False


def we_accept(program, folder, key):
    run = subprocess.run([program, "check", folder / "model.sig", key, folder], capture_output=True, text=True, check=True)
    return run.stdout.strip() == "ok"


def corrupt(folder, rng):
    """Changes one thing and says what."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name not in IGNORED)
    signature = json.loads((folder / "model.sig").read_text())
    how = rng.choice(["a bit of a file", "a file less", "a file more", "a byte of the signature", "the payload", "another key's signature"])
    victim = rng.choice(files)
    if how == "a bit of a file":
        data = bytearray(victim.read_bytes() or b"\0")
        data[rng.randrange(len(data))] ^= 1
        victim.write_bytes(bytes(data) + (b"" if data else b"x"))
    elif how == "a file less":
        victim.unlink()
    elif how == "a file more":
        (folder / "extra.sh").write_bytes(b"#!")
    elif how == "the payload":
        payload = signature["dsseEnvelope"]["payload"]
        signature["dsseEnvelope"]["payload"] = payload[:40] + ("A" if payload[40] != "A" else "B") + payload[41:]
    else:
        sig = signature["dsseEnvelope"]["signatures"][0]["sig"]
        at = 30 if how.startswith("a byte") else 50
        signature["dsseEnvelope"]["signatures"][0]["sig"] = sig[:at] + ("A" if sig[at] != "A" else "B") + sig[at + 1 :]
    (folder / "model.sig").write_text(json.dumps(signature))
    return how


def theirs(parent, n, rng, private):
    folder = parent / f"theirs-{n}"
    for name in rng.sample(["model.onnx", "a/b.bin", "a/c/d.bin", "x.txt", "a.b", "Z-1"], rng.randint(1, 6)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(rng.randbytes(rng.randrange(3000)))
    config = signing.Config().use_elliptic_key_signer(private_key=private).set_hashing_config(hasher(folder))
    config.sign(folder, folder / "model.sig")
    return folder


def main():
    program, count = Path(sys.argv[1]).resolve(), int(sys.argv[2]) if len(sys.argv) > 2 else 100
    rng, wrong = random.Random(7), []
    with tempfile.TemporaryDirectory() as name:
        parent = Path(name)
        subprocess.run([program, "write", parent, str(count)], check=True)
        key = parent / "key.pub.pem"
        for n in range(count):
            folder = parent / f"bundle-{n}"
            if not (tool_accepts(folder, key) and we_accept(program, folder, key)):
                wrong.append(f"bundle {n} of ours was refused")
            how = corrupt(folder, rng)
            if tool_accepts(folder, key) or we_accept(program, folder, key):
                wrong.append(f"bundle {n} of ours with {how} changed was accepted")
        secret = ec.generate_private_key(ec.SECP256R1())
        private, public = parent / "their.pem", parent / "their.pub.pem"
        pem = serialization.Encoding.PEM
        private.write_bytes(secret.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        public.write_bytes(secret.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
        for n in range(count):
            folder = theirs(parent, n, rng, private)
            if not we_accept(program, folder, public):
                wrong.append(f"folder {n} that the tool signed was refused")
    for line in wrong:
        print("FAIL", line)
    print(f"{count} of ours with both, {count} corrupted with both, {count} of theirs with us: {len(wrong)} differences")
    sys.exit(1 if wrong else 0)


main()
