"""Our int8 products beside onnxruntime's (MLAS u8 x i8), one thread each, taking turns in one run.

Needs `pip install onnxruntime onnx numpy`. From the repository's root:
    cargo bench -p tops-compute --bench products --no-run
    python3 compute/benches/against_mlas.py [path of the built bench] [rounds]
"""

import glob
import json
import os
import subprocess
import sys
import time

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper


def session(rows, neurons, cols):
    """MatMulInteger with constant weights, which onnxruntime packs ahead of time, as we do."""
    weights = np.random.default_rng(1).integers(-128, 128, (cols, neurons), dtype=np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [rows, cols])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [rows, neurons])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def mlas(rows, neurons, cols, seconds=1.5):
    run = session(rows, neurons, cols)
    x = {"x": np.random.default_rng(2).integers(0, 256, (rows, cols), dtype=np.uint8)}
    run.run(None, x)
    best, began = 1e9, time.perf_counter()
    while time.perf_counter() - began < seconds:
        one = time.perf_counter()
        run.run(None, x)
        best = min(best, time.perf_counter() - one)
    return 2 * rows * neurons * cols / best / 1e9


def ours(bench):
    lines = subprocess.run([bench, "1000"], check=True, capture_output=True, text=True).stdout.splitlines()
    return [json.loads(line) for line in lines]


def main():
    built = [p for p in glob.glob("target/release/deps/products-*") if os.access(p, os.X_OK)]
    bench = sys.argv[1] if len(sys.argv) > 1 else max(built, key=os.path.getmtime)
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    shapes = [(64, 1024, 1024), (64, 2048, 2048), (64, 4096, 4096)]
    theirs_best, ours_best, audits = {}, {}, {}
    for _ in range(rounds):
        for shape in shapes:
            theirs_best[shape] = max(theirs_best.get(shape, 0), mlas(*shape))
        for line in ours(bench):
            if "gops" in line:
                key = (line["isa"], line["rows"], line["neurons"], line["cols"])
                ours_best[key] = max(ours_best.get(key, 0), line["gops"])
            else:
                key = (line["isa"], line["batch"])
                audits[key] = min(audits.get(key, 1e9), line["ms_each"])
    print(f"onnxruntime {ort.__version__}, one thread, best of {rounds} rounds")
    for (isa, *shape), gops in ours_best.items():
        mlas_gops = theirs_best.get(tuple(shape))
        ratio = f"{gops / mlas_gops:.2f} of MLAS's {mlas_gops:.0f}" if mlas_gops else ""
        print(f"{isa:12} {'x'.join(map(str, shape)):14} {gops:7.1f} GOPS  {ratio}")
    for (isa, batch), ms in audits.items():
        print(f"{isa:12} a standard audit, batch {batch:3}: {ms:.3f} ms each")


if __name__ == "__main__":
    main()
