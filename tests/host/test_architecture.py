"""What the cut into packages promises: light imports, one direction of dependencies, a pinned surface."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import sa2va_host
from sa2va_host.machine.worker_program import SHARED

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "transformers", "cv2", "av", "pynvml", "rich", "pluggy", "asyncio"}
LAYERS = ["machine", "protocol", "plugins", "models", "lifecycle", "masks", "calls", "video", "output"]
"""The host's packages: each may import those before it, and none the door (`client`, `asynchronous`)."""
WORKER_MAY_IMPORT = set(SHARED)


def imports(path):
    """Every module a file imports, at any depth, as absolute dotted names."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            module = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            yield module
            yield from (f"{module}.{name.name}" for name in node.names)


def files(package):
    return sorted((ROOT / package).rglob("*.py"))


def run(code):
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True, timeout=30
    )
    return result.stdout.split()


@pytest.mark.parametrize("path", files("sa2va_host"), ids=lambda path: path.stem)
def test_the_host_imports_neither_worker_nor_plugins(path):
    assert not [name for name in imports(path) if name.split(".")[0] in ("sa2va_worker", "plugins", "torch")]


def of_the_host(path):
    """What a file imports of the host, as `module` or `package.module`."""
    for name in imports(path):
        top, _, rest = name.partition(".")
        if top == "sa2va_host" and rest:
            first, *more = rest.split(".")
            inner = (ROOT / "sa2va_host" / first).is_dir()
            # `from sa2va_host.protocol import wire` names the package first and its module next.
            if not inner or more:
                yield ".".join([first, *more[:1]]) if inner else first


def is_shared(name):
    return name in WORKER_MAY_IMPORT or name.partition(".")[0] in WORKER_MAY_IMPORT


@pytest.mark.parametrize("path", files("sa2va_worker"), ids=lambda path: path.stem)
def test_the_worker_imports_of_the_host_only_what_both_share(path):
    assert not [name for name in of_the_host(path) if not is_shared(name)]


def test_what_both_share_needs_nothing_else():
    for name in WORKER_MAY_IMPORT:
        path = ROOT / "sa2va_host" / name.replace(".", "/")
        for file in sorted(path.glob("*.py")) if path.is_dir() else [path.with_suffix(".py")]:
            assert not [used for used in of_the_host(file) if not is_shared(used)], file


@pytest.mark.parametrize("package", LAYERS)
def test_the_hosts_packages_import_only_those_below_them(package):
    above = {*LAYERS[LAYERS.index(package) + 1 :], "client", "asynchronous"}
    for path in files(f"sa2va_host/{package}"):
        assert not [name for name in of_the_host(path) if name.partition(".")[0] in above], path


def test_every_package_of_the_host_has_its_layer():
    assert {path.parent.name for path in (ROOT / "sa2va_host").glob("*/__init__.py")} == set(LAYERS)


def test_only_the_transport_makes_sockets():
    users = [
        path.stem for path in files("sa2va_host") if "zmq" in {name.split(".")[0] for name in imports(path)}
    ]
    # The others poll sockets that the transport made.
    assert set(users) == {"transport", "connection", "control", "link"}


def test_nobody_pickles_evaluates_or_uses_a_shell():
    for package in ("sa2va_host", "sa2va_worker"):
        for path in files(package):
            names = {name.split(".")[0] for name in imports(path)}
            assert not names & {"pickle", "marshal", "shelve", "dill", "cloudpickle"}, path
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    assert node.func.id not in ("eval", "exec", "compile"), path
                if isinstance(node, ast.keyword):
                    assert node.arg != "shell", path


def test_importing_the_host_is_light():
    code = (
        "import sys, time; begun = time.perf_counter(); import sa2va_host;"
        "print(time.perf_counter() - begun, *sys.modules)"
    )
    runs = [run(code) for _ in range(3)]
    assert not HEAVY & set(runs[0][1:])
    assert "numpy" not in runs[0]
    assert min(float(seconds) for seconds, *_ in runs) < 0.1


def test_the_client_itself_is_light():
    loaded = run("import sys; from sa2va_host import Sa2VA; Sa2VA('sa2va-tiny'); print(*sys.modules)")
    assert not HEAVY & set(loaded)


def test_a_picture_leaves_before_numpy_is_imported(tmp_path):
    path = tmp_path / "picture.png"
    Image.new("RGB", (640, 480)).save(path)
    code = (
        "import sys; import sa2va_host.calls.session, sa2va_host.calls.link, sa2va_host.calls.call;"
        "from sa2va_host import Sa2VA; from sa2va_host.media import read_pixels;"
        "from sa2va_host.protocol import arrays, shared_memory; Sa2VA('sa2va-tiny');"
        f"arrays.pack([read_pixels({str(path)!r})], place=shared_memory.Arena().take);"
        "print(*sys.modules)"
    )
    assert not {"numpy", "cv2", "psutil", "filelock", "pluggy", "importlib.metadata"} & set(run(code))


def test_the_surface_is_pinned_and_whole():
    assert sorted(sa2va_host.__all__) == sa2va_host.__all__
    for name in sa2va_host.__all__:
        assert getattr(sa2va_host, name).__module__.startswith("sa2va_host.")
    with pytest.raises(AttributeError):
        sa2va_host.Sa2VAE  # noqa: B018
    assert dir(sa2va_host) == sa2va_host.__all__


def test_steps_know_neither_torch_nor_sockets():
    loaded = run("import sys; import sa2va_worker.steps; print(*sys.modules)")
    assert not {"torch", "zmq"} & set(loaded)
