"""Code that attacks the grader loses the function that it stands in, and nothing else comes of it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tinypress_course.grade.technical import grade_functions
from tinypress_course.grade.work import read_work
from tinypress_course.module import read_module
from tinypress_course.standing import points_of

ATTACKED = "calculate_sparsity"
BESIDE = ("count_parameters", "dequantize_layer_weights")  # before and after it in the file

LOST, ANSWERED = "Its process", "calculate_sparsity"
ATTACKS = {
    "loops": ("while True:\n    pass", "Its process gave no answer within 2 seconds"),
    "sleeps": ("import time\ntime.sleep(600)", "Its process gave no answer within 2 seconds"),
    "fills memory": ("held = []\nwhile True:\n    held.append(bytearray(10**7))", "MemoryError"),
    "fills memory by tensors": ("return torch.ones(10**11).sum()", "RuntimeError"),
    "forks": ("import os\nwhile True:\n    os.fork()", "PermissionError"),
    "starts threads": (
        "import threading\nwhile True:\n    threading.Thread(target=input).start()",
        "RuntimeError",
    ),
    "starts a program": ("import subprocess\nsubprocess.run(['/bin/sh', '-c', 'true'])", "Error"),
    "ends": ("import os\nos._exit(0)", "ended by itself with exit code 0"),
    "exits": ("raise SystemExit(0)", "SystemExit"),
    "crashes": ("import ctypes\nctypes.string_at(0)", "SIGSEGV"),
    "recurses": (
        "import sys\nsys.setrecursionlimit(10**9)\ndef again(x):\n    return sorted([x], key=again)\nagain(1)",
        LOST,
    ),
    "prints results": ("print('{\"sparsity\": 0.5}')\nreturn None", "which is not the fraction"),
    "writes to every pipe": (
        "import os, json, struct\n"
        "text = json.dumps({'sparsity': 0.5}).encode()\n"
        "for number in range(64):\n"
        "    try:\n"
        "        os.write(number, struct.pack('<QQ', len(text), 0) + text)\n"
        "    except OSError:\n"
        "        pass\n"
        "return None",
        "which is not the fraction",
    ),
    "writes noise": ("import os\nos.write(3, b'x' * 100)\nos.write(4, b'x' * 100)\nreturn 0.5", ANSWERED),
    "closes its pipe": ("import os\nos.closerange(0, 64)\nreturn 0.5", LOST),
    "answers hugely": ("return torch.zeros(3 * 10**6)", "at most 8388608 are read"),
    "answers strangely": (
        "class Equal(float):\n"
        "    def __eq__(self, other):\n        return True\n"
        "    def __ne__(self, other):\n        return False\n"
        "    def __hash__(self):\n        return 0\n"
        "return Equal('nan')",
        "which is not the fraction",
    ),
    "answers endlessly nested": (
        "deep = []\nfor _ in range(10**5):\n    deep = [deep]\nreturn deep",
        ANSWERED,
    ),
    "describes a network beyond all memory": (
        "import tinypress_course.worker as worker\n"
        "options = {'in_features': 10**6, 'out_features': 10**6, 'bias': True}\n"
        "layer = {'name': 'a', 'kind': 'Linear', 'options': options, 'state': {'weight': torch.zeros(1, 1)}}\n"
        "worker._answer = lambda *a: {'model': {'layers': [layer]}}\nreturn 0.5",
        "larger than any that it got",
    ),
    "reads the hidden tests": (
        "from tinypress_course.checks import pruning\nreturn 0.5",
        "ModuleNotFoundError",
    ),
    "asks the toolkit": (
        "import tinypress\nreturn tinypress.calculate_sparsity(module_or_tensor)",
        "ModuleNotFound",
    ),
    "patches the checker": (
        "import tinypress_course.probes as probes, tinypress_course.wire as wire, json, builtins\n"
        "torch.equal = torch.allclose = lambda *a, **k: True\n"
        "builtins.abs = builtins.all = lambda *a: True\n"
        "probes.call = lambda *a: {'sparsity': 0.5}\n"
        "return 0.5",
        "which is not the fraction",
    ),
    "opens a socket": ("import socket\nsocket.socket()\nreturn 0.5", "PermissionError"),
    "kills others": ("import os\nos.kill(1, 9)\nos.kill(os.getppid(), 9)\nreturn 0.5", "PermissionError"),
    "raises what nobody catches": ("class Loud(BaseException):\n    pass\nraise Loud('x')", "Loud"),
}


def judged(text, handed_in, module, jail, limits):
    facts = read_module(module)
    few = tuple(step.model_copy(update={"functions": tuple(f for f in step.functions if f in (ATTACKED, *BESIDE))})
                for step in facts.steps)  # fmt: skip
    work = read_work(handed_in(text))
    points = points_of(work.cells)
    outcomes = grade_functions(
        work, facts.model_copy(update={"steps": few}), points, lambda: jail, 11, limits
    )
    return {outcome.function: outcome for outcome in outcomes}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_loses_its_own_function_alone(attack, instead, handed_in, module, jail, limits):
    body, said = ATTACKS[attack]
    outcomes = judged(instead(ATTACKED, body), handed_in, module, jail, limits)
    assert not outcomes[ATTACKED].keeps
    assert said in outcomes[ATTACKED].text
    assert [outcomes[name].keeps for name in BESIDE] == [True, True], [outcomes[n].text for n in BESIDE]
    assert not jail.broken


def test_what_it_deletes_is_still_there(instead, handed_in, module, jail, sandbox, limits, tmp_path):
    own = tmp_path / "own"
    own.write_text("kept")
    body = (
        "import os, shutil\n"
        f"for place in ('/', {str(tmp_path)!r}, {str(sandbox.stage.folder)!r}):\n"
        "    shutil.rmtree(place, ignore_errors=True)\n"
        f"open({str(own)!r}, 'w').write('changed')"
    )
    outcomes = judged(instead(ATTACKED, body), handed_in, module, jail, limits)
    assert not outcomes[ATTACKED].keeps
    assert outcomes[BESIDE[1]].keeps
    assert own.read_text() == "kept"
    assert (sandbox.stage.folder / "course" / "tinypress_course" / "worker.py").exists()
    assert Path(__file__).exists()


def test_no_connection_reaches_the_parent(instead, handed_in, module, jail, limits):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.5)
        body = (
            f"import socket\nsocket.create_connection(('127.0.0.1', {server.getsockname()[1]}))\nreturn 0.5"
        )
        outcomes = judged(instead(ATTACKED, body), handed_in, module, jail, limits)
        assert not outcomes[ATTACKED].keeps
        with pytest.raises(TimeoutError):
            server.accept()


def test_a_file_that_never_finishes_fails_everything(instead, handed_in, module, jail, limits):
    outcomes = judged(
        instead(ATTACKED, "return 0.5", before="while True: pass"), handed_in, module, jail, limits
    )
    assert [outcome.keeps for outcome in outcomes.values()] == [False] * 3
    assert "was not done with executing the file after 2 seconds" in outcomes[ATTACKED].text


def test_a_cell_that_stops_costs_only_what_it_defines(instead, handed_in, module, jail, limits):
    text = instead(ATTACKED, "return 0.5", before="import a_module_that_nobody_has")
    outcomes = judged(text, handed_in, module, jail, limits)
    assert [outcomes[name].keeps for name in (ATTACKED, *BESIDE)] == [False, True, True]
    assert "The cell calculate_sparsity stops with ModuleNotFoundError" in outcomes[ATTACKED].text


def test_a_cell_that_is_no_python_costs_only_what_it_defines(instead, handed_in, module, jail, limits):
    outcomes = judged(instead(ATTACKED, "return 0.5", before="def ("), handed_in, module, jail, limits)
    assert [outcomes[name].keeps for name in (ATTACKED, BESIDE[1])] == [False, True]
    assert "The cell calculate_sparsity stops with" in outcomes[ATTACKED].text


def test_prints_and_a_redirected_stdout_do_no_harm(instead, handed_in, module, jail, limits):
    body = (
        "import sys, io\nprint('x' * 10**6)\nsys.stdout = sys.stderr = io.StringIO()\n"
        "tensor = module_or_tensor\n"
        "if isinstance(tensor, nn.Module):\n"
        "    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d)\n"
        "    weights = [m.weight.flatten() for m in tensor.modules() if isinstance(m, kinds)]\n"
        "    if not weights:\n        raise ValueError('no weights')\n"
        "    tensor = torch.cat(weights)\n"
        "elif not isinstance(tensor, torch.Tensor):\n    raise ValueError(f'{tensor!r}')\n"
        "return (tensor == 0).double().mean().item() if tensor.numel() else 0.0"
    )
    outcomes = judged(instead(ATTACKED, body), handed_in, module, jail, limits)
    assert outcomes[ATTACKED].keeps, outcomes[ATTACKED].text
