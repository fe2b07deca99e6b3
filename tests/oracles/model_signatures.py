"""Does the OpenSSF tool `model_signing` agree with `petrel-trust` on `model.sig`, both ways?

    python tests/oracles/model_signatures.py target/debug/examples/model_signatures target/debug/petrel [N]

N folders that the crate's example signed, and N bundles that `petrel pack` and `petrel sign` made, must
verify with the tool and with us; each with one thing changed must be refused by both; and N
folders that the tool signed must verify with us. Prints one line, and one for each difference;
exits 1 if there is any.
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


def petrel(program, *args):
    return subprocess.run([program, *args], capture_output=True, text=True)


def petrel_accepts(program, folder, parent):
    """All that `petrel verify` asks, `model.sig` among it."""
    root, public = parent / "fleet/root.json", parent / "keys/publisher-p256.pub"
    return petrel(program, "verify", folder, "--root", root, "--p256-public", public).returncode == 0


def command_accepts(folder, key):
    """The tool as a person calls it, as the help of `petrel sign` says."""
    tool = Path(sys.executable).parent / "model_signing"
    line = [tool, "verify", "key", folder, "--signature", folder / "model.sig", "--public_key", key]
    return subprocess.run([*line, "--ignore-paths", folder / "bundle.dsse.json"], capture_output=True).returncode == 0


def packed(program, parent, n):
    """A bundle of a small model, packed and signed with both keys."""
    model, folder = Path(__file__).resolve().parent.parent / "models/diabetes", parent / f"packed-{n}"
    golden = ["--golden", model / "golden_x.npy", model / "golden_y.npy"]
    line = ["pack", model / "model.onnx", "--stream", f"s-{n}", "--version", f"1.0.{n}", *golden, "-o", folder]
    for step in [line, ["sign", folder, "--key", parent / "keys/publisher.pem"]]:
        run = petrel(program, *step)
        if run.returncode:
            sys.exit(run.stderr)
    return folder


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
    program, ours = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 100
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
        petrel(ours, "keys", "new", "--role", "publisher", "--out", parent / "keys")
        publisher, key = parent / "keys/publisher.pub", parent / "keys/publisher-p256.pub"
        petrel(ours, "root", "init", "--fleet", "oracle", "--out", parent / "fleet", "--publisher", publisher)
        for n in range(count):
            folder = packed(ours, parent, n)
            if not (tool_accepts(folder, key) and petrel_accepts(ours, folder, parent)):
                wrong.append(f"packed bundle {n} was refused")
            # The command starts slowly: it is asked about one in ten.
            if n % 10 == 0 and not command_accepts(folder, key):
                wrong.append(f"the command refused packed bundle {n}")
            how = corrupt(folder, rng)
            if tool_accepts(folder, key) or petrel_accepts(ours, folder, parent):
                wrong.append(f"packed bundle {n} with {how} changed was accepted")
            if n % 10 == 0 and command_accepts(folder, key):
                wrong.append(f"the command accepted packed bundle {n} with {how} changed")
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
    told = f"{count} of the crate's and {count} packed with both, as many corrupted with both, {count} of theirs with us"
    print(f"{told}: {len(wrong)} differences")
    sys.exit(1 if wrong else 0)


main()
