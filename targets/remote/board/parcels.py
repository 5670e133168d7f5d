"""Files that come and go many at a time: for each a line of JSON (name, size, sha256), then its content.

One command for all of them: every command over ssh costs a shell on the board and a way there and back.
"""

import hashlib
import json
import os
import sys
import tempfile

import jobs
import results
import system

READ_AHEAD_BYTES = 8 << 20  # a connection that breaks costs no more than this
CHUNK = 1 << 16


def offer(folder):
    """Take a job's manifest from stdin; say how the job stands, and which of its files are not here yet."""
    manifest = json.load(sys.stdin)
    found = jobs.status(folder)
    if found["alive"] or found["state"] == "done":
        return dict(found, missing=[])
    os.makedirs(results.folder_of(folder), exist_ok=True)
    system.write(os.path.join(folder, jobs.MANIFEST), manifest)
    return dict(found, missing=[entry["path"] for entry in manifest["files"] if not _is_here(folder, entry)])


def receive(folder):
    """Take files of the job from stdin. Each appears whole or not at all, so what came before a break stays."""
    expected = {entry["path"]: entry["sha256"] for entry in jobs.read_manifest(folder)["files"]}
    source, count = sys.stdin.buffer, 0
    while True:
        line = source.readline(CHUNK)
        if not line:
            return {"received": count}
        entry = json.loads(line.decode("utf-8"))
        if expected.get(entry["name"]) != entry["sha256"]:
            raise jobs.JobError("%s is no file of this job" % entry["name"])
        if not _take(source, entry["size"], os.path.join(folder, entry["name"]), entry["sha256"]):
            return {"received": count, "damaged": entry["name"]}
        count += 1


def fetch(folder):
    """Write results to stdout: the first of the names in stdin, and of the others what goes along at little cost."""
    wanted, known = json.load(sys.stdin), results.names(folder)
    missing = sorted(set(wanted) - set(known))
    if missing:
        raise jobs.JobError("the job left no %s" % ", ".join(missing))
    left, out = READ_AHEAD_BYTES, sys.stdout.buffer
    for number, name in enumerate(wanted):
        path = os.path.join(results.folder_of(folder), name)
        size = os.path.getsize(path)
        if number and size > left:
            continue
        left -= size
        header = {"name": name, "size": size, "sha256": system.sha256(path)}
        out.write(json.dumps(header).encode("ascii") + b"\n")
        with open(path, "rb") as file:
            for chunk in iter(lambda: file.read(CHUNK), b""):
                out.write(chunk)
    out.flush()


def _is_here(folder, entry):
    path = os.path.join(folder, entry["path"])
    return os.path.isfile(path) and system.sha256(path) == entry["sha256"]


def _take(source, size, path, digest):
    """False: other bytes came than were sent, or too few."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    handle, part = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".part-")
    seen = hashlib.sha256()
    try:
        with os.fdopen(handle, "wb") as file:
            while size:
                chunk = source.read(min(size, CHUNK))
                if not chunk:
                    return False
                seen.update(chunk)
                file.write(chunk)
                size -= len(chunk)
            file.flush()
            os.fsync(file.fileno())
        if seen.hexdigest() != digest:
            return False
        os.replace(part, path)
        return True
    finally:
        if os.path.exists(part):
            os.unlink(part)
