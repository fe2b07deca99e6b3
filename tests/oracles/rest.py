"""The REST API against its own OpenAPI document: schemathesis makes requests, with a token of each role, and says which
answers are server errors or not as the document describes them.

    rest.py --bin FOLDER [--cases N]
"""

import argparse
import json
import pathlib
import re
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request

ROLES = ["viewer", "publisher", "operator", "approver", "admin"]
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
]


def main() -> None:
    args = argparse.ArgumentParser()
    args.add_argument("--bin", type=pathlib.Path, required=True)
    args.add_argument("--cases", type=int, default=2_000)
    asked = args.parse_args()
    petrel = (asked.bin / "petrel").resolve()
    with tempfile.TemporaryDirectory() as folder:
        desk = pathlib.Path(folder)
        environment = {"PATH": "/usr/bin:/bin", "HOME": folder, "XDG_CONFIG_HOME": str(desk / "config")}

        def run(*words: str) -> dict:
            done = subprocess.run([petrel, "--json", *words], cwd=desk, env=environment, capture_output=True, text=True)
            if done.returncode != 0:
                sys.exit(f"petrel {' '.join(words)}: {done.stderr}")
            return json.loads(done.stdout)

        run("root", "init", "--fleet", "sea", "--out", "fleet")
        config = (desk / "fleet/bridge.toml").read_text().replace("127.0.0.1:8443", "127.0.0.1:0")
        (desk / "fleet/bridge.toml").write_text(config.replace("127.0.0.1:8883", "127.0.0.1:0"))
        log = (desk / "bridge.log").open("w")
        bridge = subprocess.Popen([petrel, "bridge", "--config", "fleet/bridge.toml"], cwd=desk, env=environment, stderr=log, stdout=log)
        try:
            told = next(desk.glob("fleet/**/bridge.json"), None)
            end = time.monotonic() + 60
            while told is None and time.monotonic() < end and bridge.poll() is None:
                time.sleep(0.05)
                told = next(desk.glob("fleet/**/bridge.json"), None)
            if told is None:
                sys.exit(f"the bridge did not start: {(desk / 'bridge.log').read_text()}")
            api, data = json.loads(told.read_text())["api"], told.parent
            ca = desk / "fleet/tls/ca.pem"
            run("login", api, "--ca", str(ca), "--token-file", str(data / "admin.token"))
            total = 0
            for role in ROLES:
                run("people", "new", f"a-{role}", "--role", role, "--out", f"{role}.token")
                token = (desk / f"{role}.token").read_text().strip()
                total += fuzz(desk, api, ca, role, token)
            status = urllib.request.urlopen(f"{api}/healthz", context=ssl.create_default_context(cafile=str(ca))).status
            alive = bridge.poll() is None and status == 200
            print(json.dumps({"cases": total, "roles": len(ROLES), "alive": alive}))
            if total < asked.cases or not alive:
                sys.exit(f"{total} cases of at least {asked.cases}; the bridge is {'alive' if alive else 'gone'}")
        finally:
            bridge.terminate()
            bridge.wait()


def fuzz(desk: pathlib.Path, api: str, ca: pathlib.Path, role: str, token: str) -> int:
    """Requests of one role; how many they were."""
    # What would take the tokens away that the next role needs is left out: its answers are in the end-to-end tests.
    command = [
        pathlib.Path(sys.executable).with_name("schemathesis"), "run", f"{api}/api/v1/openapi.json",
        "--header", f"Authorization: Bearer {token}",
        "--tls-verify", str(ca),
        "--checks", ",".join(CHECKS),
        "--max-examples", "12",
        "--phases", "examples,coverage,fuzzing",
        "--no-shrink",
        "--continue-on-failure",
        "--warnings", "off",
        "--exclude-path", "/api/v1/people/{name}/revoke",
    ]
    # What is wrong within schemathesis itself is no finding: another seed is tried, once.
    for seed in ["7", "8"]:
        # It keeps what it found where it stands.
        done = subprocess.run([*command, "--seed", seed], cwd=desk, capture_output=True, text=True)
        if done.returncode == 0 or "FAILURES" in done.stdout:
            break
    counted = re.search(r"(\d+) generated", done.stdout)
    print(f"{role}: {done.stdout[-6000:] if done.returncode else 'agrees'}", flush=True)
    if done.returncode:
        sys.exit(f"with a token of a {role}: {done.stderr[-2000:]}")
    return int(counted.group(1)) if counted else 0


main()
