"""Engines in this process: timed in turn, asked for answers, and watched while they load."""

import gc
import json
import os
import random
import sys
import time

import probe
import system

WINDOW = 20
STEADY = 0.02
MOST_WARMUP_SECONDS = 2.0
VISIT_SECONDS = 0.025
MOST_CALLS = 200
STEADY_CALLS = 20
LOADS = 4  # of every engine where there is time, else two
SECONDS_FOR_LOADS = 8.0
LEAST_ROUNDS = 2  # of each load
LOOK_SECONDS = 0.25  # between two looks at the clock, outside of the timed calls


def part(words):
    """One part of a job: [folder, part, names, where the result goes]."""
    folder, what, names, result = json.loads(words)
    _keep_quiet()
    with open(os.path.join(folder, "manifest.json")) as file:
        manifest = json.load(file)
    chosen = [engine for engine in manifest["engines"] if engine["name"] in names]
    _pin(manifest.get("threads", 1))
    parts = {"memory": _memory, "timing": _timing, "answers": _answers, "layers": _layers}
    system.write(result, parts[what](folder, manifest, chosen))


def _keep_quiet():
    """Let no runtime report its use to its maker: both look at this when they are imported."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    sys.modules.setdefault("openvino_telemetry", None)


def _load(folder, manifest, engine):
    """A function from an array to the first output."""
    if manifest["runtime"] == "onnxruntime":
        session = onnxruntime_session(folder, manifest, engine)
        name = session.get_inputs()[0].name
        return lambda batch: session.run(None, {name: batch})[0]
    import openvino

    request = openvino_model(folder, manifest, engine).create_infer_request()
    bound = []

    def call(batch):
        if not bound or bound[0] is not batch:
            request.set_input_tensor(openvino.Tensor(batch, shared_memory=True))
            bound[:] = [batch]
        return request.infer(None).to_tuple()[0]

    return call


def onnxruntime_session(folder, manifest, engine, profile_to=None):
    """profile_to: where the names of its records begin; None: it keeps none."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = manifest.get("threads", 1)
    options.inter_op_num_threads = 1
    if profile_to is not None:
        options.enable_profiling = True
        options.profile_file_prefix = profile_to
    path = os.path.join(folder, engine["model"])
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def openvino_model(folder, manifest, engine, counters=False):
    """counters: let it count the time of each layer, which costs some."""
    import openvino

    core = _cores.setdefault("core", openvino.Core())
    hints = {"fp32": "f32", "int8": "f32", "bf16": "bf16", "fp16": "f16"}
    settings = {
        "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": manifest.get("threads", 1), "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": hints[engine["precision"]], "PERF_COUNT": counters,
    }  # fmt: skip
    return core.compile_model(core.read_model(os.path.join(folder, engine["model"])), "CPU", settings)


_cores = {}


def sample_of(folder, manifest):
    import numpy

    entry = manifest["input"]
    return numpy.fromfile(os.path.join(folder, entry["file"]), dtype=entry["dtype"]).reshape(entry["shape"])


def _memory(folder, manifest, engines):
    phases = {"start": _now()}
    times = {}
    began = time.perf_counter()
    __import__(manifest["runtime"])
    times["runtime_ms"] = 1000 * (time.perf_counter() - began)
    phases["runtime"] = _now()
    sample = sample_of(folder, manifest)
    began = time.perf_counter()
    call = _load(folder, manifest, engines[0])
    times["load_ms"] = 1000 * (time.perf_counter() - began)
    phases["load"] = _now()
    began = time.perf_counter()
    call(sample)
    times["first_ms"] = 1000 * (time.perf_counter() - began)
    phases["first"] = _now()
    for _ in range(STEADY_CALLS):
        call(sample)
    phases["steady"] = _now()
    return {"phases": phases, "cold_start": times}


def _timing(folder, manifest, engines):
    """As on the machine that sent this: shuffled rounds, visits of about 25 ms, every sample kept, in milliseconds.

    Engines are loaded several times, each second time in the opposite order: the first may lie better in memory.
    """
    sample = sample_of(folder, manifest)
    names, rng = [engine["name"] for engine in engines], random.Random(manifest["seed"])
    told = {"samples_ms": {name: [] for name in names}, "visited_s": {name: [] for name in names},
            "warmup_calls": dict.fromkeys(names, 0), "rounds_by_load": [], "seen": [_look()]}  # fmt: skip
    loads = LOADS if manifest["seconds"] >= SECONDS_FOR_LOADS else 2
    order, began, calls = list(engines), time.perf_counter(), {}
    for load in range(loads):
        calls.clear()
        gc.collect()  # before others take their place: there may not be room for both
        for engine in order:
            calls[engine["name"]] = _load(folder, manifest, engine)
        told["rounds_by_load"].append(_rounds(calls, sample, manifest["seconds"] / loads, rng, began, told))
        order.reverse()
        if load % 2:
            rng.shuffle(order)
    told["seen"].append(_look())
    return told


def _rounds(calls, sample, seconds, rng, began, told):
    """One load's part of the time; returns how many rounds it had."""
    per_visit = {}
    for name, call in calls.items():
        warmups, typical = _warm_up(call, sample)
        told["warmup_calls"][name] += warmups
        per_visit[name] = max(1, min(MOST_CALLS, round(VISIT_SECONDS / max(typical, 1e-7))))
    order, count = list(calls), 0
    started = looked = time.perf_counter()
    while time.perf_counter() - started < seconds or count < LEAST_ROUNDS:
        rng.shuffle(order)
        for name in order:
            call = calls[name]
            call(sample)
            told["visited_s"][name].append(time.perf_counter() - began)
            visit = []
            for _ in range(per_visit[name]):
                before = time.perf_counter()
                call(sample)
                visit.append(1000 * (time.perf_counter() - before))
            told["samples_ms"][name].append(visit)
        count += 1
        if time.perf_counter() - looked > LOOK_SECONDS:
            told["seen"].append(_look())
            looked = time.perf_counter()
    return count


def _look():
    """The clock of the CPU that is timed, the warmest place, and what a Raspberry Pi says of its power."""
    clock = system.number("/sys/devices/system/cpu/cpu%d/cpufreq/scaling_cur_freq" % max(os.sched_getaffinity(0)))
    return {
        "mhz": None if clock is None else clock / 1000.0,
        "celsius": max(probe.temperatures().values(), default=None),
        "held_back": _held_back(),
    }


def _held_back():
    """True: power or heat hold it back right now (the low bits of what the firmware says)."""
    said = system.text("/sys/devices/platform/soc/soc:firmware/get_throttled")
    try:
        return None if said is None else bool(int(said, 16) & 0xF)
    except ValueError:
        return None


def _warm_up(call, sample):
    times, began = [], time.perf_counter()
    while True:
        before = time.perf_counter()
        call(sample)
        times.append(time.perf_counter() - before)
        if len(times) >= 2 * WINDOW and len(times) % WINDOW == 0:
            last, earlier = _median(times[-WINDOW:]), _median(times[-2 * WINDOW : -WINDOW])
            if abs(last - earlier) <= STEADY * earlier:
                break
        if len(times) >= 2 and time.perf_counter() - began > MOST_WARMUP_SECONDS:
            break
    return len(times), _median(times[-2 * WINDOW :])


def _layers(folder, manifest, engines):
    import counters

    return counters.count(folder, manifest, engines[0])


def _answers(folder, manifest, engines):
    if manifest["runtime"] == "tensorrt":
        return _answers_of_tensorrt(folder, manifest["evaluation"], engines[0])
    import numpy

    evaluation = manifest["evaluation"]
    images = numpy.memmap(
        os.path.join(folder, evaluation["files"][0]), dtype=evaluation["dtype"], mode="r",
        shape=tuple(evaluation["shape"]),
    )  # fmt: skip
    call = _load(folder, manifest, engines[0])
    found = [numpy.array(call(numpy.array(images[number : number + 1]))) for number in range(len(images))]
    outputs = numpy.concatenate(found).astype(numpy.float32)
    name = "outputs-%s.bin" % engines[0]["name"]
    outputs.tofile(os.path.join(folder, "results", name))
    return {"file": name, "shape": list(outputs.shape)}


def _answers_of_tensorrt(folder, evaluation, engine):
    import tensorrt
    import trt_api

    name = "outputs-%s.bin" % engine["name"]
    plan = os.path.join(system.home(), "engines", engine["key"] + ".plan")
    samples = os.path.join(folder, evaluation["files"][0])
    try:
        cuda = trt_api.Cuda()
        shape = trt_api.answer_all(
            tensorrt, cuda, plan, samples, evaluation["shape"], os.path.join(folder, "results", name)
        )
    except trt_api.ApiError as error:
        raise SystemExit("TensorRT's Python package: %s" % error)
    return {"file": name, "shape": shape}


def _now():
    found = {}
    for line in (system.text("/proc/self/status") or "").splitlines():
        key, _, value = line.partition(":")
        if key in ("VmRSS", "RssAnon", "VmHWM"):
            found[key] = int(value.split()[0]) / 1024.0
    return {"resident": found.get("VmRSS"), "anonymous": found.get("RssAnon"), "peak": found.get("VmHWM")}


def _median(values):
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2.0


def _pin(threads):
    allowed = sorted(os.sched_getaffinity(0))
    if threads < len(allowed):
        os.sched_setaffinity(0, set(allowed[-threads:]))
