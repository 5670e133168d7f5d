"""Hold a Jetson's clocks at their maximum while it is measured, and put them back afterwards."""

import os

import system

SAVED = "clocks.saved"


def hold():
    """True: they are held now. Nothing is done, and False said, where that takes rights that we do not have."""
    saved = os.path.join(system.home(), SAVED)
    if os.path.exists(saved):
        restore()  # an earlier job was killed before it could
    if system.told(["sudo", "-n", "jetson_clocks", "--store", saved], seconds=30) is None:
        return False
    return system.told(["sudo", "-n", "jetson_clocks"], seconds=30) is not None


def restore():
    """True: they are as they were. False: nothing was saved, or it cannot be put back."""
    saved = os.path.join(system.home(), SAVED)
    if not os.path.exists(saved):
        return False
    if system.told(["sudo", "-n", "jetson_clocks", "--restore", saved], seconds=30) is None:
        return False
    system.told(["sudo", "-n", "rm", "-f", saved])
    if os.path.exists(saved):
        os.unlink(saved)
    return True
