"""A job with TensorRT: engines are built here with trtexec, timed in turn, asked for answers, and taken apart."""

import contextlib
import gzip
import os
import random
import re
import shutil

import inprocess
import probe
import results
import system
import watch
from jobs import JobError

SMALLER_WORKSPACES = (512, 256, 128, 64)  # MiB: tried one after the other when a build runs out of memory
OUT_OF_MEMORY = re.compile(r"out of memory|OUT_OF_MEMORY|Insufficient memory|std::bad_alloc|OutOfMemory", re.IGNORECASE)
WORKSPACE = re.compile(r"^(--workspace=|--memPoolSize=workspace:)(\d+)(.*)$")
IDLE_SECONDS = 5.0
OUTPUT_BYTES = 512 << 20


def carry_out(folder, manifest, say):
    tool = probe.trtexec()
    if tool is None:
        raise JobError("trtexec is neither in PATH nor in /usr/src/tensorrt/bin: install TensorRT with JetPack")
    job = _Job(folder, manifest, tool, say)
    built = [engine for number, engine in enumerate(manifest["engines"]) if job.build(engine, number)]
    if not built:
        raise JobError("no engine could be built")
    job.time(built)
    for engine in built:
        job.answers(engine)
    for engine in built:
        job.layers(engine)


class _Job(object):
    def __init__(self, folder, manifest, tool, say):
        self.folder, self.manifest, self.tool, self.say = folder, manifest, tool, say
        self.limits = manifest["limits"]

    def path(self, name):
        return os.path.join(self.folder, name)

    def result(self, name):
        return os.path.join(results.folder_of(self.folder), name)

    def plan(self, engine):
        """Engines are kept for every job with the same key, which is made of all that decides an engine.

        Those that nobody will want again go with their job.
        """
        folder = self.folder if engine.get("passing") else os.path.join(system.home(), "engines")
        return os.path.join(folder, engine["key"] + ".plan")

    def build(self, engine, number):
        """True: the engine is there. What went wrong is a result too: the others go on."""
        name = engine["name"]
        known = system.read(self.result("build-%s.json" % name))
        if known is not None and (not known["ok"] or os.path.exists(self.plan(engine))):
            return known["ok"]
        if os.path.exists(self.plan(engine)):
            system.write(self.result("build-%s.json" % name), {"ok": True, "seconds": 0.0, "cached": True})
            return True
        self.say("building", "building %s" % name, share=0.4 * number / len(self.manifest["engines"]))
        tried = []
        for words in _with_smaller_workspaces(engine["build"]):
            ended, log = self._build_once(engine, words)
            tried.append(
                {"flags": words, "why": ended.why, "seconds": ended.seconds, "peak_mb": ended.memory["peak_mb"]}
            )
            if ended.why is None:
                break
            if not (ended.code in (-9, 137) or OUT_OF_MEMORY.search(log)):
                break
        found = {"ok": ended.why is None, "why": ended.why, "seconds": ended.seconds, "tried": tried, "cached": False}
        system.write(self.result("build-%s.json" % name), found)
        return found["ok"]

    def _build_once(self, engine, flags):
        log, part = self.result("build-%s.log" % engine["name"]), self.plan(engine) + ".part"
        cache = os.path.join(system.home(), "timing", engine["timing_cache"])
        words = [self.tool, "--onnx=" + self.path(engine["model"]), "--saveEngine=" + part]
        ended = system.run(
            words + ["--timingCacheFile=" + cache] + flags, log, self.limits["build_seconds"], self.folder
        )
        if ended.why is None and not (os.path.exists(part) and os.path.getsize(part)):
            ended.why = "trtexec ended well and wrote no engine"
        if ended.why is None:
            os.rename(part, self.plan(engine))
        return ended, _text(log)

    def time(self, engines):
        """Rounds in shuffled order, each engine once in each; rounds that an interrupted run finished are kept."""
        done = system.read(self.result(results.ROUNDS)) or {"rounds": [], "idle_mw": None}
        rounds, names = done["rounds"], [engine["name"] for engine in engines]
        if done["idle_mw"] is None and not any(rounds):
            done["idle_mw"] = watch.idle_mw(IDLE_SECONDS)
        rng = random.Random(self.manifest["seed"])
        wanted = self.manifest["rounds"]
        for number in range(wanted):
            order = list(engines)
            rng.shuffle(order)
            if number < len(rounds) and results.is_whole(rounds[number], names):
                continue
            one = {}
            for engine in order:
                self.say(
                    "timing", "round %d of %d: %s" % (number + 1, wanted, engine["name"]), 0.4 + 0.4 * number / wanted
                )
                one[engine["name"]] = self._time_once(engine, number)
            rounds[number : number + 1] = [one]
            system.write(self.result(results.ROUNDS), done)

    def _time_once(self, engine, number):
        name = engine["name"]
        times, log = self.result("times-%s-%d.json" % (name, number)), self.result("time-%s-%d.log" % (name, number))
        words = [self.tool, "--loadEngine=" + self.plan(engine), "--exportTimes=" + times] + engine["time"]
        for stale in (times, times + ".gz"):  # of a round that was interrupted, or failed
            with contextlib.suppress(OSError):
                os.unlink(stale)
        with watch.Watch() as watched:
            ended = system.run(words, log, self.limits["step_seconds"], self.folder)
        if os.path.exists(times):
            _compress(times)
        _compress(log)
        return dict(ended.memory, why=ended.why, watched=watched.facts())

    def answers(self, engine):
        """What the engine says of the samples: of all in one process with TensorRT's Python package, else a run of the
        tool for each.
        """
        name = engine["name"]
        evaluation = self.manifest.get("evaluation")
        if evaluation is None or system.read(self.result("answers-%s.json" % name)) is not None:
            return
        if evaluation["at_once"]:
            self.say("answering", "%s: all %d samples" % (name, evaluation["shape"][0]), 0.8)
            inprocess.part(self.folder, self.manifest, "answers", [name])
            return
        files, why, outputs = evaluation["files"], None, []
        for number, inputs in enumerate(files):
            self.say("answering", "%s: %d of %d" % (name, number + 1, len(files)), 0.8 + 0.15 * number / len(files))
            out, log = self.result("output-%s-%d.json" % (name, number)), self.result("answer-%s.log" % name)
            words = [self.tool, "--loadEngine=" + self.plan(engine), "--exportOutput=" + out]
            words += ["--loadInputs=%s:%s" % (engine["input"], self.path(inputs)), "--iterations=1", "--warmUp=0"]
            words += ["--duration=0"] + engine["shapes"]
            ended = system.run(words, log, self.limits["step_seconds"], self.folder)
            why = ended.why or (None if os.path.exists(out) else "trtexec wrote no output")
            if why:
                break
            _compress(out)
            outputs.append(os.path.basename(out) + ".gz")
        system.write(self.result("answers-%s.json" % name), {"why": why, "outputs": outputs})

    def layers(self, engine):
        """Time and precision of every layer, in a run of its own: counting slows it down."""
        name = engine["name"]
        if system.read(self.result("layers-%s.json" % name)) is not None:
            return
        self.say("profiling", "layers of %s" % name, 0.96)
        log = self.result("profile-%s.log" % name)
        words = [self.tool, "--loadEngine=" + self.plan(engine), "--dumpProfile", "--separateProfileRun"]
        words += ["--exportProfile=" + self.result("profile-%s.json" % name)]
        words += ["--exportLayerInfo=" + self.result("layerinfo-%s.json" % name), "--profilingVerbosity=detailed"]
        ended = system.run(words + engine["shapes"], log, self.limits["step_seconds"], self.folder)
        _compress(log)
        system.write(
            self.result("layers-%s.json" % name), {"why": ended.why, "bytes": os.path.getsize(self.plan(engine))}
        )


def _with_smaller_workspaces(flags):
    """The flags as they are, then with less and less workspace."""
    yield flags
    for index, flag in enumerate(flags):
        found = WORKSPACE.match(flag)
        if found:
            for smaller in SMALLER_WORKSPACES:
                if smaller < int(found.group(2)):
                    yield flags[:index] + ["%s%d%s" % (found.group(1), smaller, found.group(3))] + flags[index + 1 :]


def _compress(path):
    """What goes back over the wire, packed; a file that is too large to go is left out."""
    if os.path.getsize(path) <= OUTPUT_BYTES:
        with open(path, "rb") as plain, gzip.GzipFile(path + ".gz", "wb", 6, mtime=0) as packed:
            shutil.copyfileobj(plain, packed)
    os.unlink(path)


def _text(path):
    try:
        with open(path, "rb") as file:
            return file.read(1 << 20).decode("utf-8", "replace")
    except OSError:
        return ""
