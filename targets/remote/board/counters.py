"""What a runtime counts of each layer while an engine runs: raw, and made sense of by whoever sent the job."""

import gzip
import json
import os
import time

import system

LEAST_RUNS, MOST_RUNS = 30, 100  # with more, ONNX Runtime's record fills the memory of a small board
SKIPPED_RUNS = 5  # the first ones build kernels and fill caches
KERNEL = "_kernel_time"
OF_A_NODE = ("op_name", "node_index", "output_type_shape", "mem_arena_held")


def count(folder, manifest, engine):
    """Run one engine with the counters on. Apart from the timing on purpose: counting slows it down."""
    import sessions

    sample = sessions.sample_of(folder, manifest)
    seconds, name = manifest["layer_seconds"], engine["name"]
    if manifest["runtime"] == "onnxruntime":
        raw = os.path.join(folder, "results", ".trace-%s" % name)
        found = _of_onnxruntime(sessions.onnxruntime_session(folder, manifest, engine, raw), sample, seconds)
    else:
        found = _of_openvino(sessions.openvino_model(folder, manifest, engine, counters=True), sample, seconds)
    file = "counters-%s.json.gz" % name
    with gzip.GzipFile(os.path.join(folder, "results", file), "wb", 6, mtime=0) as packed:
        packed.write(json.dumps(found).encode("ascii"))
    return {"file": file}


def _run(call, seconds):
    runs, began = 0, time.perf_counter()
    while runs < LEAST_RUNS or (time.perf_counter() - began < seconds and runs < MOST_RUNS):
        call()
        runs += 1
    return runs


def _of_onnxruntime(session, sample, seconds):
    name = session.get_inputs()[0].name
    runs = _run(lambda: session.run(None, {name: sample}), seconds)
    path = session.end_profiling()
    try:
        events = system.read(path) or []
    finally:
        os.unlink(path)
    kept = [event for event in events if event.get("cat") == "Node" and event["name"].endswith(KERNEL)]
    return {"runs": runs, "events": [_shortened(event) for event in kept]}


def _shortened(event):
    told = event.get("args", {})
    args = {key: told[key] for key in OF_A_NODE if key in told}
    return {"cat": "Node", "name": event["name"], "dur": event["dur"], "args": args}


def _of_openvino(compiled, sample, seconds):
    request = compiled.create_infer_request()
    for _ in range(SKIPPED_RUNS):
        request.infer([sample])
    early = _means_us(request)
    runs = SKIPPED_RUNS + _run(lambda: request.infer([sample]), seconds)
    nodes = []
    for node in compiled.get_runtime_model().get_ordered_ops():
        told = node.get_rt_info()
        keys = ("layerType", "runtimePrecision", "originalLayersNames")
        nodes.append([node.get_friendly_name()] + [str(told[key].astype(str)) if key in told else "" for key in keys])
    return {"runs": runs, "skipped": SKIPPED_RUNS, "early": early, "late": _means_us(request), "nodes": nodes}


def _means_us(request):
    """Mean microseconds of each node since the start."""
    return {entry.node_name: entry.real_time.total_seconds() * 1e6 for entry in request.profiling_info}
