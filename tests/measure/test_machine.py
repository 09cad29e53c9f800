"""The machine: names and instruction sets read from texts of the kernel."""

from importlib.metadata import version

import pytest

from tinypress.errors import InputError
from tinypress.measure.machine import machine, read_cpuinfo

XEON = """processor\t: 0
model name\t: Xeon Something @ 2.00GHz
flags\t\t: fpu sse4_2 avx avx2 avx512f avx512_vnni amx_int8 avx_vnni

processor\t: 1
model name\t: Another
flags\t\t: fpu
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp i8mm\nCPU implementer\t: 0x41\n"


def test_the_first_processor_of_a_cpuinfo():
    name, isa = read_cpuinfo(XEON)
    assert name == "Xeon Something @ 2.00GHz"
    assert set(isa) == {"avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8"}


def test_arm_calls_its_flags_features():
    assert read_cpuinfo(ARM) == ("", ("neon", "asimddp", "i8mm"))
    assert read_cpuinfo("") == ("", ())


def test_a_flag_is_a_whole_word():
    assert read_cpuinfo("model name : A\nflags : avx512_vnni2 myavx2 avx2x")[1] == ()


def test_this_machine(tmp_path):
    found = machine(3)
    assert found.threads == 3
    assert found.cpu
    assert found.runtimes == {"onnxruntime": version("onnxruntime"), "torch": version("torch")}
    written = tmp_path / "cpuinfo"
    written.write_text(XEON)
    assert machine(1, written).cpu == "Xeon Something @ 2.00GHz"


def test_without_a_cpuinfo_nothing_is_claimed(tmp_path):
    found = machine(1, tmp_path / "absent")
    assert found.isa == ()
    assert found.cpu


def test_no_thread_is_refused():
    with pytest.raises(InputError, match=r"machine\(threads=0\)"):
        machine(0)
