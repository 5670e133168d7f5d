"""The command line of the script on the board: every command but `fetch` prints one JSON document."""

import argparse
import json
import sys

import carry
import jobs
import parcels
import probe
import sessions


def main():
    parser = argparse.ArgumentParser(prog="edgepress-board")
    parser.add_argument("command", choices=sorted(COMMANDS))
    parser.add_argument("argument", nargs="?")
    options = parser.parse_args()
    try:
        answer = COMMANDS[options.command](options.argument)
    except (jobs.JobError, OSError) as problem:
        told = jobs.words_of(problem) if isinstance(problem, OSError) else str(problem)
        if options.command == "carry":  # for a person, not for a program
            sys.exit(told)
        answer = {"problem": told}
    if answer is not None:
        json.dump(answer, sys.stdout)
        sys.stdout.write("\n")


COMMANDS = {
    "probe": lambda _: probe.everything(),
    "offer": parcels.offer,
    "receive": parcels.receive,
    "fetch": parcels.fetch,
    "start": jobs.start,
    "status": jobs.status,
    "stop": jobs.stop,
    "work": jobs.work,
    "clean": jobs.clean,
    "carry": carry.carry,
    "part": sessions.part,
    "restore-clocks": lambda _: jobs.restore_clocks(),
}

if __name__ == "__main__":
    main()
