import platform
from pathlib import Path

import pytest

from edgepress.targets import cpu, profiles

CPUINFO = "processor\t: 0\nmodel name\t: Some CPU @ 2.00GHz\ncpu MHz\t\t: 1999.5\nflags\t\t: {flags}\n"


def machine(root: Path, *, flags: str = "", files: dict[str, str] | None = None) -> Path:
    """A file system of a machine with these CPU flags."""
    for name, text in {"proc/cpuinfo": CPUINFO.format(flags=flags), **(files or {})}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("sse4_2 avx2 fma", True),
        ("avx2 avx512f avx512bw", True),
        ("avx2 avx512f avx512_vnni", False),
        ("avx2 avx_vnni", False),
        ("avx2 avx512f amx_int8", False),
        ("", True),
    ],
)
def test_x86_saturates_unless_it_adds_byte_products_in_32_bits(
    flags: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert cpu.saturates(root=machine(tmp_path, flags=flags)) is expected


def test_arm_does_not_saturate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert not cpu.saturates(root=tmp_path)


@pytest.mark.parametrize(("saturates", "bits"), [(True, 7), (False, 8)])
def test_automatic_weight_bits_follow_the_cpu(saturates: bool, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "saturates", lambda: saturates)
    assert cpu.weight_bits(profiles.load("openvino-cpu")) == bits


@pytest.mark.parametrize(("profile", "bits"), [("x86-avx2", 7), ("raspberry-pi-5", 8)])
def test_weight_bits_that_a_profile_names_hold_on_every_cpu(profile: str, bits: int) -> None:
    assert cpu.weight_bits(profiles.load(profile)) == bits


@pytest.mark.parametrize(("flags", "expected"), [("avx2 avx512f", False), ("amx_bf16", True), ("avx512_bf16", True)])
def test_bfloat16_is_read_from_the_flags(flags: str, expected: bool, tmp_path: Path) -> None:
    assert cpu.has_bfloat16(root=machine(tmp_path, flags=flags)) is expected


@pytest.mark.parametrize(
    ("flags", "expected"), [("amx_bf16 avx512_fp16", False), ("amx_fp16 amx_bf16", True), ("asimd asimdhp", True)]
)
def test_float16_counts_where_it_is_faster_than_float32(flags: str, expected: bool, tmp_path: Path) -> None:
    assert cpu.has_float16(root=machine(tmp_path, flags=flags)) is expected
