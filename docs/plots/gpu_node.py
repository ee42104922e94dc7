#!/usr/bin/env python3
"""Questions of docs/performance.md to a node on a host with GPUs: what two devices reach together, how busy a mining node keeps its device
while audits come in, and how soon a new head replaces the job.

    gpu_node.py target/release/tops-node [seconds]

With two GPUs two nodes mine one network of the standard shape, a device each, and audit each other's shares, about 30 a second. With one GPU the
first node mines alone for a while, then rests; the second one joins, mines, and audits all that the first one had found. Builds nothing.
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import urllib.request

NODE, SECONDS = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 60
GPUS = min(2, subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout.count("GPU "))
RATE = 1.4e6 * GPUS  # attempts a second of the devices that mine at once, for the difficulty


def bench(devices):
    out = subprocess.run([NODE, "bench", "--backend", "cuda", "--devices", devices, "--seconds", "20", "--json"], capture_output=True, text=True)
    if out.returncode:
        sys.exit(f"bench --devices {devices}: {out.stdout}{out.stderr}")
    return json.loads(out.stdout)


def bits(work):
    target = 2**256 // int(work)
    size = (target.bit_length() + 7) // 8
    mantissa = target >> (8 * (size - 3))
    if mantissa & 0x800000:
        mantissa, size = mantissa >> 8, size + 1
    return size << 24 | mantissa


def metrics(port):
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
    return {m[1] + (m[2] or ""): float(m[3]) for m in re.finditer(r"^(\w+)(\{[^}]*\})? ([0-9.e+-]+)", text, re.M)}


def mines(port):
    try:
        return metrics(port).get('tops_device_attempts_total{device="cuda:0"}', 0) > 0
    except OSError:
        return False


def rest(port):
    body = json.dumps({"paused": True}).encode()
    urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/v1/mining", body, {"Content-Type": "application/json"}), timeout=5)


def main():
    if GPUS == 2:
        results = {devices: bench(devices) for devices in ("0", "1", "0,1")}
        print(json.dumps(results, indent=1), flush=True)

    folder = pathlib.Path(tempfile.mkdtemp())
    spacing, network = 15, folder / "network.toml"
    head_work = RATE * spacing
    network.write_text(
        f"m = 16\nn = 4096\nk = 4096\nspacing_secs = {spacing}\nhalf_life_secs = 120\ngenesis_bits = {bits(head_work)}\neasiest_bits = {bits(head_work / 4)}\n"
        f"share_log2 = 10\nstale_window = 3\ngenesis_time_ms = {int(time.time() * 1e3)}\n"
    )
    nodes, logs = [], []
    for i in (0, 1):
        command = [NODE, "--network", network, "--data-dir", folder / f"node{i}", "--backend", "cuda", "--devices", str(i % GPUS)]
        command += ["--listen", f"/ip4/127.0.0.1/tcp/{4169 + i}", "--http", f"127.0.0.1:{4167 + 10 * i}"]
        command += ["--alone"] if GPUS == 1 and i == 0 else ["--bootstrap", f"/ip4/127.0.0.1/tcp/{4169 + 1 - i}"]
        logs.append(open(folder / f"node{i}.log", "w"))
        nodes.append(subprocess.Popen([str(part) for part in command], stdout=logs[i], stderr=subprocess.STDOUT))
        if GPUS == 1 and i == 0:
            time.sleep(50)
            rest(4167)
    ports = (4167, 4177)
    try:
        # Two find each other first; one that joins is measured from its first attempt.
        deadline = time.time() + 25
        while time.time() < deadline and (GPUS == 2 or not mines(4177)):
            time.sleep(0.2)
        before, began = [metrics(port) for port in ports], time.time()
        time.sleep(SECONDS)
        after, wall = [metrics(port) for port in ports], time.time() - began
    finally:
        for node in nodes:
            node.terminate()
        for node in nodes:
            node.wait(timeout=20)
        for log in logs:
            log.close()
            errors = [line for line in open(log.name) if "ERROR" in line or "WARN" in line]
            print("".join(errors[:5]), end="")
    for i, (old, new) in enumerate(zip(before, after)):
        print(f"node {i}, {wall:.1f} s:")
        for name in sorted(new):
            if "device_" in name and name.split("{")[0].endswith("_total"):
                print(f"  {name} {(new[name] - old.get(name, 0)) / wall:.4g} a second")
        for name in sorted(new):
            if re.search(r"height|shares|watts|clock|peers|replaced", name) and "{" not in name.split("_")[0]:
                print(f"  {name} {new[name]:g}")


main()
