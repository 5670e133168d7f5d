"""Put a Jetson into a power mode, hold its clocks at their maximum while it is measured, and put both back."""

import os
import re

import system

SAVED, SAVED_MODE = "clocks.saved", "power-mode.saved"


def hold():
    """True: they are held now. Nothing is done, and False said, where that takes rights that we do not have."""
    saved = _path(SAVED)
    if os.path.exists(saved):
        _restore_clocks()  # an earlier job was killed before it could
    if system.told(["sudo", "-n", "jetson_clocks", "--store", saved], seconds=30) is None:
        return False
    return system.told(["sudo", "-n", "jetson_clocks"], seconds=30) is not None


def switch(mode):
    """Why the board is not in that power mode now; None: it is. What it was in is known by a file until it is back."""
    before = _mode()
    if before is None:
        return "nvpmodel does not say which power mode the board is in"
    if before == mode:
        return None
    if not os.path.exists(_path(SAVED_MODE)):  # else an earlier job was killed: what it found is what was
        with open(_path(SAVED_MODE), "w") as file:
            file.write(str(before))
    done = system.told(["sudo", "-n", "nvpmodel", "-m", str(mode)], seconds=60)
    if _mode() == mode:
        return None
    if done is None:
        return "nvpmodel does not run with sudo, or there is no power mode %d there" % mode
    return "power mode %d takes a restart of the board: set it there with `sudo nvpmodel -m %d`" % (mode, mode)


def restore():
    """True: clocks and power mode are as they were. False: nothing was saved, or something cannot be put back."""
    held, switched = os.path.exists(_path(SAVED)), os.path.exists(_path(SAVED_MODE))
    if held and not _restore_clocks():
        return False
    if switched and not _restore_mode():
        return False
    return held or switched


def _restore_clocks():
    saved = _path(SAVED)
    if system.told(["sudo", "-n", "jetson_clocks", "--restore", saved], seconds=30) is None:
        return False
    system.told(["sudo", "-n", "rm", "-f", saved])
    if os.path.exists(saved):
        os.unlink(saved)
    return True


def _restore_mode():
    with open(_path(SAVED_MODE)) as file:
        before = int(file.read())
    system.told(["sudo", "-n", "nvpmodel", "-m", str(before)], seconds=60)
    if _mode() != before:
        return False
    os.unlink(_path(SAVED_MODE))
    return True


def _mode():
    """The number that `nvpmodel -q` prints on the line after the name."""
    found = re.search(r"NV Power Mode: *\S+\s+(\d+)", system.told(["nvpmodel", "-q"]) or "")
    return int(found.group(1)) if found else None


def _path(name):
    return os.path.join(system.home(), name)
