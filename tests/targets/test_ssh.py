"""The way to a board, through a real ssh server on this machine."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sshd import Server

from edgepress.targets.errors import DeviceError, LostConnectionError, RecipeError
from edgepress.targets.remote.address import Address
from edgepress.targets.remote.ssh import Ssh
from edgepress.targets.remote.ssh_messages import explain


@pytest.fixture
def ssh(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ssh]:
    monkeypatch.setenv("EDGEPRESS_SSH_CONFIG", str(server.config))
    with Ssh(Address.parse(server.address)) as found:
        yield found


@pytest.mark.parametrize(
    ("text", "user", "host", "port"),
    [
        ("ssh://nano", None, "nano", None),
        ("ssh://me@board.local:2222", "me", "board.local", 2222),
        ("ssh://me@[fe80::1%eth0]:22", "me", "fe80::1%eth0", 22),
        ("ssh://10.0.0.7/", None, "10.0.0.7", None),
    ],
)
def test_addresses_are_taken_apart(text: str, user: str | None, host: str, port: int | None) -> None:
    found = Address.parse(text)
    assert (found.user, found.host, found.port) == (user, host, port)
    assert Address.parse(str(found)) == found


@pytest.mark.parametrize(
    "text",
    [
        "nano", "http://nano", "ssh://", "ssh://-oProxyCommand=touch", "ssh://me@-x", "ssh://-l@nano", "ssh://a b",
        "ssh://nano;reboot", "ssh://$(id)@nano", "ssh://nano\n", "ssh://me:secret@nano", "ssh://nano:99999",
        "ssh://nano:0", "ssh://nano/etc", "ssh://na'no", 'ssh://na"no', "ssh://`id`", "ssh://näno", "ssh://nano?x", "ssh://a@b@c",
    ],
)  # fmt: skip
def test_what_could_be_taken_for_something_else_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="device"):
        Address.parse(text)


def test_a_command_runs_there_and_its_words_arrive_as_they_are(ssh: Ssh) -> None:
    words = ["a b", "it's", '"x"', "$HOME", "`id`", "-n", "new\nline", "*", "\\", "é"]
    done = ssh.run(["printf", "%s|", "--", *words])
    assert done.code == 0
    assert done.text == "--|" + "".join(f"{word}|" for word in words)


def test_what_a_command_says_and_how_it_ends_comes_back(ssh: Ssh) -> None:
    done = ssh.run(["sh", "-c", "cat; echo oh >&2; exit 7"], stdin=b"in")
    assert (done.code, done.text, done.stderr.strip()) == (7, "in", "oh")


def test_further_commands_need_no_new_connection(ssh: Ssh) -> None:
    ssh.run(["true"])
    began = time.monotonic()
    for _ in range(5):
        ssh.run(["true"])
    assert time.monotonic() - began < 5 * 0.5


def test_what_a_command_reads_is_told_as_it_goes(ssh: Ssh) -> None:
    pieces, seen = [os.urandom(300_000) for _ in range(10)], []
    done = ssh.run(["sha256sum"], stdin=iter(pieces), progress=seen.append)
    assert done.text.split()[0] == hashlib.sha256(b"".join(pieces)).hexdigest()
    assert seen == [300_000 * count for count in range(1, 11)]


def test_a_file_goes_there_whole(ssh: Ssh, server: Server, tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    source = tmp_path / "a file"
    source.write_bytes(content)
    there = server.board / "it's a 'file'"
    assert ssh.put(source, str(there))
    assert there.read_bytes() == content
    assert not ssh.put(source, str(there)), "it is there already"
    assert not list(server.board.glob("*.part"))
    assert ssh.put(b"", f"{server.board}/empty")
    assert (server.board / "empty").read_bytes() == b""


def test_a_file_that_arrives_damaged_takes_no_name(ssh: Ssh, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgepress.targets.remote.ssh._digest", lambda content: "0" * 64)
    with pytest.raises(LostConnectionError, match="damaged; it is sent again"):
        ssh.put(b"content", f"{server.board}/damaged")
    assert not (server.board / "damaged").exists()


def test_an_answer_that_is_too_long_and_a_folder_that_is_not_there_are_errors(ssh: Ssh, server: Server) -> None:
    with pytest.raises(DeviceError, match="refused"):
        ssh.run(["head", "-c", "200000", "/dev/zero"], limit_bytes=1000)
    with pytest.raises(DeviceError, match="writing .* failed: .*(No such|nonexistent|cannot create)"):
        ssh.put(b"x", f"{server.board}/no/such/folder")
    with pytest.raises(DeviceError, match="looking failed: .*No such file"):
        ssh.checked(["ls", f"{server.board}/nothing"], what="looking")


def test_a_command_that_hangs_is_given_up(ssh: Ssh) -> None:
    with pytest.raises(DeviceError, match="no answer within 1 s"):
        ssh.run(["sleep", "60"], timeout_seconds=1)


def test_a_connection_that_breaks_is_told_as_such_and_the_next_one_works(ssh: Ssh, server: Server) -> None:
    ssh.run(["true"])
    with pytest.raises(LostConnectionError):
        ssh.run(["sh", "-c", f"kill -KILL $PPID; pkill -KILL -P {server.process.pid}; sleep 5"])
    assert ssh.run(["echo", "back"]).text == "back\n"


def test_an_unknown_key_and_a_changed_one_are_refused_with_the_way_out(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = server.config.read_text()
    for content, words in [("", "not known yet"), (_other_key(server, tmp_path), "ssh-keygen -R")]:
        (tmp_path / "hosts").write_text(content)
        config = tmp_path / "config"
        config.write_text(text.replace(str(server.folder / "known_hosts"), str(tmp_path / "hosts")))
        monkeypatch.setenv("EDGEPRESS_SSH_CONFIG", str(config))
        with Ssh(Address.parse(server.address)) as ssh, pytest.raises(DeviceError, match=words):
            ssh.run(["true"])


def test_a_server_that_knows_no_key_of_ours_is_not_asked_for_a_password(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config"
    config.write_text(server.config.read_text().replace(str(server.folder / "user"), str(server.folder / "host")))
    monkeypatch.setenv("EDGEPRESS_SSH_CONFIG", str(config))
    with Ssh(Address.parse(server.address)) as ssh, pytest.raises(DeviceError, match="ssh-copy-id"):
        ssh.run(["true"])


def test_a_host_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGEPRESS_SSH_CONFIG", raising=False)
    with Ssh(Address.parse("ssh://127.0.0.1:1")) as ssh, pytest.raises(DeviceError, match="no ssh server listens"):
        ssh.run(["true"])


@pytest.mark.parametrize(
    ("said", "word", "again"),
    [
        ("ssh: Could not resolve hostname nano: Name or service not known", "no such host", False),
        ("ssh: connect to host nano port 22: No route to host", "no route", False),
        ("ssh: connect to host nano port 22: Connection timed out", "does not answer", False),
        ("Timeout, server nano not responding.", "connection broke", True),
        ("client_loop: send disconnect: Broken pipe", "connection broke", True),
        ("something never seen", "something never seen", False),
    ],
)
def test_what_ssh_says_becomes_advice(said: str, word: str, again: bool) -> None:
    found = explain(said, Address.parse("ssh://me@nano"))
    assert word in str(found)
    assert isinstance(found, LostConnectionError) == again


def _other_key(server: Server, folder: Path) -> str:
    kind, key = (server.folder / "user.pub").read_text().split()[:2]
    return f"[127.0.0.1]:{server.port} {kind} {key}\n"
