"""After the probes: no secret in an answer or a log, nothing of CORS, and what the nodes say of their readiness.

usage: after.py FOLDER SECRET TOKEN, where FOLDER holds NAME.http, NAME.log and NAME.har of the nodes open, guarded, bridging and stale.
"""

import json
import pathlib
import sys
import time
import urllib.error
import urllib.request

folder, secret, token = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
findings = []


def base(name):
    return (folder / f"{name}.http").read_text().strip()


def get(name, path):
    request = urllib.request.Request(base(name) + path, headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, dict(answer.headers), answer.read().decode()
    except urllib.error.HTTPError as answer:
        return answer.code, dict(answer.headers), answer.read().decode()


def look(where, text):
    for what, word in (("the miner's key", secret), ("the token", token)):
        if word.lower() in text.lower():
            findings.append(f"{where} tells {what}")


answers = 0
for name in ("open", "guarded"):
    for entry in json.loads((folder / f"{name}.har").read_text())["log"]["entries"]:
        answers += 1
        where = f"{name}: {entry['request']['method']} {entry['request']['url']}"
        answer = entry["response"]
        # What a client sent may come back in a sentence; what it did not send may not.
        sent = (entry["request"].get("postData") or {}).get("text", "") + entry["request"]["url"]
        if token not in sent and secret not in sent:
            look(where, json.dumps(answer))
        for header in answer["headers"]:
            if header["name"].lower().startswith("access-control"):
                findings.append(f"{where} answers {header['name']}")
for name in ("open", "guarded", "bridging", "stale"):
    for path in ("/v1/status", "/v1/peers", "/v1/devices", "/v1/rejections", "/v1/outbox", "/metrics", "/openapi.json", "/readyz", "/nowhere"):
        answers += 1
        look(f"{name}{path}", get(name, path)[2])
    log = (folder / f"{name}.log").read_text()
    if not log:
        findings.append(f"{name} wrote no log")
    look(f"the log of {name}", log)


def reason(name, check, word, within):
    """Waits until a check of a node says so."""
    end = time.monotonic() + within
    while True:
        status, _, body = get(name, "/readyz")
        said = json.loads(body)["checks"][check]
        if word in said and status == 503:
            print(f"{name}: {check}: {said}")
            return
        if time.monotonic() > end:
            findings.append(f"{name}: {check} should say `{word}`, with 503; it says `{said}`, with {status}")
            return
        time.sleep(1)


reason("bridging", "aggregator", "taken nothing for", 180)
reason("stale", "head", "no new head for", 120)
for finding in sorted(set(findings)):
    print(f"FOUND: {finding}")
print(f"{answers} answers looked through, {len(findings)} findings")
sys.exit(1 if findings else 0)
