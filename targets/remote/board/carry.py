"""A job that somebody carried here in a folder: worked off in front of them, and packed for the way back."""

import gzip
import json
import os
import sys
import tarfile
import time

import jobs
import probe
import results
import system

ARCHIVE = "results.tar"
PROBE, SUMS = "probe.json", "sums.json"
LOOK_SECONDS = 0.5
FAILED, MISSING = 5, 3


def carry(folder):
    """Begin the job or go on with it, say how far it is until it ends, and pack what it found."""
    manifest = jobs.read_manifest(folder)
    facts = probe.everything()
    _refuse_without_runtime(manifest["runtime"], facts)
    expected = manifest.get("version")
    found = facts["tensorrt_code"]
    if expected and found not in (None, expected):
        _tell("This was written for TensorRT v%s, and the board has v%s: flags may differ." % (expected, found))
    jobs.start(folder)
    state = _until_it_ends(folder)
    os.makedirs(results.folder_of(folder), exist_ok=True)
    system.write(os.path.join(folder, PROBE), facts)
    failed = _summary(folder, manifest)
    _pack(folder)
    if state["state"] == "failed":
        again = "Its logs are in results/ and in %s; start it again to try again." % ARCHIVE
        _fail("The job failed: %s\n%s" % (state["text"], again), FAILED)
    print("Done: bring %s back, and `compress import %s` there." % (ARCHIVE, ARCHIVE))
    if failed:
        _fail("%d of the engines failed." % failed, FAILED)


def _refuse_without_runtime(runtime, facts):
    if runtime == "tensorrt" and facts["trtexec"] is None:
        _fail("trtexec is neither in PATH nor in /usr/src/tensorrt/bin: install TensorRT with JetPack.", MISSING)
    if runtime != "tensorrt" and runtime not in facts["runtimes"]:
        text = "%s cannot be imported by %s: install it (pip install %s), or name a Python that has it:\n%s"
        _fail(text % (runtime, sys.executable, runtime, "PYTHON=/path/to/python sh run.sh"), MISSING)


def _until_it_ends(folder):
    told = None
    while True:
        state = jobs.status(folder)
        if state["text"] != told:
            told = state["text"]
            print(told, flush=True)
        if not state["alive"]:
            if state["state"] in jobs.ENDED:
                return state
            raise jobs.JobError("its process is gone: start it again, and it goes on where it was")
        time.sleep(LOOK_SECONDS)


def _summary(folder, manifest):
    """Print a line for each engine; how many failed."""
    medians = _of_tensorrt if manifest["runtime"] == "tensorrt" else _in_process
    failed = 0
    for name, median, why in medians(folder, [engine["name"] for engine in manifest["engines"]]):
        failed += median is None
        print("%s: %s" % (name, why if median is None else "median latency %.3f ms" % median))
    return failed


def _of_tensorrt(folder, names):
    """Name, median of the first round, and why there is none."""
    for name in names:
        build = system.read(os.path.join(results.folder_of(folder), "build-%s.json" % name)) or {}
        if not build.get("ok"):
            yield name, None, "could not be built (%s), see results/build-%s.log" % (build.get("why"), name)
            continue
        median = _median_ms(os.path.join(results.folder_of(folder), "times-%s-0.json.gz" % name))
        yield name, median, "could not be timed"


def _in_process(folder, names):
    timing = system.read(os.path.join(results.folder_of(folder), "timing-all.json")) or {}
    for name in names:
        times = sorted(value for visit in timing.get("samples_ms", {}).get(name, []) for value in visit)
        told = system.read(os.path.join(results.folder_of(folder), "memory-%s.json" % name)) or {}
        yield name, times[len(times) // 2] if times else None, "could not be run (%s)" % told.get("why")


def _median_ms(path):
    """Of the first round, roughly: what counts is worked out where the results go."""
    try:
        with gzip.open(path, "rb") as file:
            times = sorted(float(entry["latencyMs"]) for entry in json.loads(file.read().decode("utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return times[len(times) // 2] if times else None


def _pack(folder):
    """One file with everything that an import reads, and the sum of each."""
    names = [jobs.MANIFEST, PROBE] + ["results/" + name for name in results.names(folder)]
    sums = {name: system.sha256(os.path.join(folder, name)) for name in names}
    system.write(os.path.join(folder, SUMS), sums)
    part = os.path.join(folder, ARCHIVE + ".part")
    with tarfile.open(part, "w") as archive:
        for name in [SUMS] + names:
            archive.add(os.path.join(folder, name), arcname=name, recursive=False)
    os.rename(part, os.path.join(folder, ARCHIVE))


def _tell(text):
    sys.stderr.write(text + "\n")


def _fail(text, code):
    sys.stdout.flush()
    _tell(text)
    raise SystemExit(code)
