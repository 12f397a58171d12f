"""The repository as a node pack: loads under any name, leaves `sys.path` alone, and its documents fit its nodes."""

import asyncio
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import tomllib

torch = pytest.importorskip("torch")

ROOT = Path(__file__).resolve().parents[2]
WEB = ROOT / "plugins" / "comfyui" / "web"
LOAD = """
import sys
from importlib.util import module_from_spec, spec_from_file_location

sys.path[:0] = [{stand_in!r}]
import comfy.model_management, folder_paths
folder_paths.models_dir = folder_paths.user_directory = {folder!r}
before = list(sys.path)
name = {pack!r}.replace(".", "_x_")
spec = spec_from_file_location(name, {pack!r} + "/__init__.py")
pack = sys.modules[name] = module_from_spec(spec)
spec.loader.exec_module(pack)
import asyncio
nodes = asyncio.run(asyncio.run(pack.comfy_entrypoint()).get_node_list())
assert sys.path == before, sys.path
assert not {{"tests", "plugins", "training", "sa2va_worker"}} & set(sys.modules)
import sa2va_host
files = [getattr(each, "__file__", None) or "" for each in sys.modules.values()]
print(len(nodes), sa2va_host.__file__, len([file for file in files if file.endswith("sa2va_host/errors.py")]))
"""


def nodes():
    from sa2va_plugins.comfyui.extension import NODES

    return {node.define_schema().node_id: node.define_schema() for node in NODES}


@pytest.fixture
def schemas(comfy):
    from sa2va_plugins.comfyui import model_list

    model_list.register_folder()
    return nodes()


def test_a_clone_loads_under_any_folder_name_and_puts_nothing_on_the_path(tmp_path):
    pack = tmp_path / "custom_nodes" / "any-name.v1"
    pack.parent.mkdir()
    pack.symlink_to(ROOT, target_is_directory=True)
    stand_in = str(Path(__file__).parent / "stand_in")
    code = LOAD.format(stand_in=stand_in, folder=str(tmp_path), pack=str(pack))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["7", str(ROOT / "sa2va_host" / "__init__.py"), "1"]


NODES_PY = """
import asyncio, os, runpy, sys
sys.path[:] = [folder for folder in sys.path if "site-packages" not in folder] + [{packages!r}, {stand_in!r}]
import comfy.model_management, folder_paths
folder_paths.models_dir = folder_paths.user_directory = {packages!r}
pack = runpy.run_path({pack!r} + "/__init__.py", run_name="pack")
assert "WEB_DIRECTORY" in pack
try:
    asyncio.run(pack["comfy_entrypoint"]())
except Exception as error:
    print(f"Error while calling comfy_entrypoint: {{error}}")
"""
"""As ComfyUI's `nodes.py` loads a pack: it prints a traceback for an import that fails, and one line for this."""


@pytest.mark.parametrize("lacking", ["msgspec", "pyzmq", "packaging", "platformdirs", "pluggy", "msgpack"])
def test_a_python_that_lacks_a_light_package_gets_a_sentence_with_the_command(tmp_path, lacking):
    modules = {"pyzmq": "zmq"}
    hidden = (modules.get(lacking, lacking), f"{lacking}-", f"{lacking}.")
    for folder in map(Path, sys.path):
        for entry in folder.iterdir() if folder.name == "site-packages" else ():
            ours = "sa2va" in entry.name or entry.suffix == ".pth"
            out = entry.name == hidden[0] or entry.name.lower().startswith(hidden[1:])
            link = tmp_path / entry.name
            if not (ours or out or link.is_symlink()):
                link.symlink_to(entry)
    code = NODES_PY.format(
        packages=str(tmp_path), stand_in=str(Path(__file__).parent / "stand_in"), pack=str(ROOT)
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    requirement = next(
        line for line in (ROOT / "requirements.txt").read_text().splitlines() if line.startswith(lacking)
    )
    assert f"ComfyUI's Python lacks {requirement}. Run this once in a terminal" in done.stdout
    said = shlex.split(done.stdout.partition("restart ComfyUI: ")[2])
    assert (sys.executable in said, "install" in said, said[-1]) == (True, True, requirement)


def test_an_old_comfyui_and_a_fault_of_our_own_are_not_taken_for_a_missing_package(tmp_path):
    for fault, said in (
        (
            "sys.modules['comfy_api.latest'] = None",
            "ImportError: Sa2VA's nodes need ComfyUI 0.3.64 or newer.",
        ),
        ("sys.modules['sa2va_host.errors'] = object()", "cannot import name"),
    ):
        code = NODES_PY.replace('if "site-packages" not in folder]', "]")
        code = code.format(
            packages=str(tmp_path), stand_in=str(Path(__file__).parent / "stand_in"), pack=str(ROOT)
        ).replace("import comfy.model", f"{fault}\nimport comfy.model", 1)
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=False,
            timeout=60,
        )
        assert said in done.stderr
        assert "lacks" not in done.stdout + done.stderr


def test_a_light_package_that_is_too_old_for_us_is_named(tmp_path):
    """Where the import fails for it; an older version that will do is left alone."""
    fault = (
        "from importlib import metadata as m; real = m.version;"
        " m.version = lambda name: '0.1' if name == 'msgspec' else real(name)"
    )
    code = NODES_PY.replace('if "site-packages" not in folder]', "]")
    code = code.format(
        packages=str(tmp_path), stand_in=str(Path(__file__).parent / "stand_in"), pack=str(ROOT)
    )
    for broken, said in (("import msgspec; del msgspec.Struct\n", "lacks msgspec>="), ("", "")):
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                code.replace("import comfy.model", f"{fault}\n{broken}import comfy.model", 1),
            ],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert said in done.stdout
        assert bool(said) == ("lacks" in done.stdout)


def test_elsewhere_the_root_does_nothing(tmp_path):
    code = f"import runpy, sys; runpy.run_path({str(ROOT / '__init__.py')!r}); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
        timeout=60,
    )
    assert not [name for name in done.stdout.split() if name.startswith("sa2va")]


def test_the_clone_is_the_command_too(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT, "setup", "--help"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
        timeout=60,
    )
    assert done.stdout.startswith("usage: sa2va setup")


def test_a_clone_is_as_good_as_an_installation(comfy):
    from sa2va_host.machine.clone import CloneDistribution

    clone = CloneDistribution(ROOT)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert clone.metadata["Name"] == project["name"]
    assert clone.version == project["version"]
    assert {each.name for each in clone.entry_points if each.group == "sa2va"} == set(
        project["entry-points"]["sa2va"]
    )
    assert any(line.startswith("torch>=") and "worker" in line for line in clone.requires or ())
    assert json.loads(clone.read_text("direct_url.json") or "")["url"] == ROOT.as_uri()


WORKER = """
import json, runpy, sys
sys.path[:] = [folder for folder in sys.path if "site-packages" not in folder] + [{packages!r}]
engine = runpy.run_path({program!r}, run_name="worker")
engine["register_packages"](engine["HERE"].parent)
processors = engine["make_engine"]()._processors
assert "plugins" not in sys.modules and {root!r} not in sys.path
print(*processors)
"""


def test_the_worker_of_a_clone_has_its_plugins(tmp_path):
    """With nothing of ours installed: an interpreter that has everything in its site-packages but this distribution."""
    for folder in map(Path, sys.path):
        for entry in folder.iterdir() if folder.name == "site-packages" else ():
            link = tmp_path / entry.name
            if not ("sa2va" in entry.name or entry.suffix == ".pth" or link.is_symlink()):
                link.symlink_to(entry)
    program = ROOT / "sa2va_worker" / "__main__.py"
    code = WORKER.format(packages=str(tmp_path), program=str(program), root=str(ROOT))
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["vitmatte"]


def test_the_old_nodes_come_only_when_they_are_wanted(comfy, monkeypatch):
    from sa2va_plugins.comfyui import extension, preferences

    async def offered():
        return await (await extension.comfy_entrypoint()).get_node_list()

    assert len(asyncio.run(offered())) == 7
    monkeypatch.setattr(preferences, "is_on", preferences.OLD_NAMES.__eq__)
    assert len(asyncio.run(offered())) == 11


def test_every_input_and_output_has_a_tooltip_and_descriptions_are_for_readers(schemas):
    for schema in schemas.values():
        assert "earch words" not in schema.description
        assert schema.category == "Sa2VA"
        for slot in (*schema.inputs, *schema.outputs):
            assert slot.options["tooltip"].endswith((".", ".).")), (schema.node_id, slot.id)


def test_a_comfyui_that_knows_search_words_is_given_them_and_finds_the_main_nodes_first(comfy, monkeypatch):
    from comfy_api.latest import io

    from sa2va_plugins.comfyui.extension import NODES

    class Newer(io.Schema):  # type: ignore[misc]
        def __init__(self, search_aliases=(), **said):
            super().__init__(search_aliases=search_aliases, **said)

    assert not any(hasattr(node.define_schema(), "search_aliases") for node in NODES)
    monkeypatch.setattr(io, "Schema", Newer)
    words = {node.define_schema().node_id: node.define_schema().search_aliases for node in NODES}
    assert all(words.values())
    assert "VRAM" in words["Sa2VAUnload"]
    assert [name for name in words if "Sa2VA" in words[name]] == [
        "Sa2VAImageSegmentation",
        "Sa2VAVideoSegmentation",
    ], "an exact word comes before a name that only begins with it"


def test_a_comfyui_that_can_skip_branches_is_let_do_so(comfy, monkeypatch):
    """What `has_intermediate_output` is for; without it nodes with a preview stay what they were."""
    from comfy_api.latest import io

    class Newer(io.Schema):  # type: ignore[misc]
        def __init__(self, has_intermediate_output=False, **said):
            super().__init__(has_intermediate_output=has_intermediate_output, **said)

    def ends(schemas):
        return {name for name, schema in schemas.items() if schema.is_output_node}

    with_preview = {"Sa2VAImageSegmentation", "Sa2VAMasksFromTracks", "Sa2VARefineEdges"}
    assert ends(nodes()) == with_preview | {"Sa2VAChat", "Sa2VAUnload"}
    monkeypatch.setattr(io, "Schema", Newer)
    newer = nodes()
    assert ends(newer) == {"Sa2VAChat", "Sa2VAUnload"}, "whose purpose is what they show or do"
    shown = {name for name, schema in newer.items() if schema.has_intermediate_output}
    assert shown == with_preview | {"Sa2VAVideoSegmentation"}


def test_rarer_options_are_folded_away_where_comfyui_can(comfy, monkeypatch):
    from comfy_api.latest import io

    def advanced():
        return {each.id for each in nodes()["Sa2VAModelOptions"].inputs if getattr(each, "advanced", None)}

    assert advanced() == set()
    for kind in (io.Int, io.Float, io.String, io.Boolean, io.Combo):
        monkeypatch.setattr(kind.Input, "advanced", None, raising=False)
    everyday = {"quantization", "device", "keep_alive", "minutes", "max_new_tokens"}
    assert advanced() == {each.id for each in nodes()["Sa2VAModelOptions"].inputs} - everyday


def test_inputs_and_outputs_that_came_later_come_last(schemas):
    """Saved workflows hold values and links by their places."""

    def ids(name, kind):
        return [slot.id for slot in getattr(schemas[name], kind)]

    assert ids("Sa2VAImageSegmentation", "inputs") == [
        *("model", "image", "prompt", "threshold", "options"),
        "max_objects",
    ]
    assert ids("Sa2VAImageSegmentation", "outputs") == [
        *("text", "masks", "object_masks", "boxes", "details", "probabilities"),
        *("object_mask_batch", "bounding_boxes", "overlay", "cut_out"),
    ]
    assert ids("Sa2VAVideoSegmentation", "inputs")[7:] == [
        *("key_frame_sampling", "condition_on", "ask_again", "ask_again_every"),
        *("preview_opacity", "preview_fps", "max_objects"),
    ]
    assert ids("Sa2VAVideoSegmentation", "outputs") == [
        *("text", "masks", "tracks"),
        *("overlay", "overlay_video"),
    ]
    assert ids("Sa2VAMasksFromTracks", "outputs")[3:] == ["object_mask_batch"]
    for name, later in (("Sa2VAImageSegmentation", 1), ("Sa2VAVideoSegmentation", 3)):
        assert all(slot.options["optional"] for slot in schemas[name].inputs[-later:])


def test_the_english_locale_says_what_the_nodes_say(schemas):
    locale = json.loads((ROOT / "locales" / "en" / "nodeDefs.json").read_text())
    assert set(locale) == set(schemas)
    for name, schema in schemas.items():
        assert locale[name]["display_name"] == schema.display_name
        assert locale[name]["description"] == schema.description
        tooltips = {each.id: each.options["tooltip"] for each in schema.inputs}
        assert list(locale[name]["inputs"]) == list(tooltips)
        assert {key: each["tooltip"] for key, each in locale[name]["inputs"].items()} == tooltips
        outputs = [each.options["tooltip"] for each in schema.outputs]
        assert [each["tooltip"] for each in locale[name]["outputs"].values()] == outputs


def test_the_chinese_locale_has_everything_in_chinese():
    english, chinese = (
        {
            file.name: json.loads(file.read_text(encoding="utf-8"))
            for file in (ROOT / "locales" / language).iterdir()
        }
        for language in ("en", "zh")
    )
    assert shape(english) == shape(chinese)
    for path, text in leaves(chinese):
        assert "搜索词" not in text
        assert re.search("[\u4e00-\u9fff]", text) or text in ("top_p", "top_k", "min_p"), (path, text)


def shape(tree):
    return {key: shape(value) for key, value in tree.items()} if isinstance(tree, dict) else None


def leaves(tree, path=()):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


def test_every_node_has_a_help_page_in_both_languages(schemas):
    for name, schema in schemas.items():
        page = (WEB / "docs" / f"{name}.md").read_text()
        assert page.startswith(f"# {schema.display_name}\n")
        assert (WEB / "docs" / name / "zh.md").read_text(encoding="utf-8").startswith("# Sa2VA ")
    assert {file.stem for file in (WEB / "docs").glob("*.md")} == set(schemas)


def test_the_chinese_help_pages_have_the_headings_of_the_english_ones(schemas):
    for name in schemas:
        pages = [WEB / "docs" / f"{name}.md", WEB / "docs" / name / "zh.md"]
        english, chinese = (paragraphs(page.read_text(encoding="utf-8")) for page in pages)
        assert english == chinese, name


def paragraphs(page):
    """For each paragraph whether it begins with a heading or a bold word, and how often it has such words."""
    parts = [part for part in page.split("\n\n") if part.strip()]
    return [
        (part.startswith(("#", "**")), len(re.findall(r"\*\*.+?\*\*", part, re.DOTALL))) for part in parts
    ]


def test_headings_of_the_settings_and_the_node_list_are_translated():
    script = (WEB / "settings.js").read_text()
    headings = set(re.findall(r'category: \["Sa2VA", "(\w+)"', script))
    for language in ("en", "zh"):
        told = json.loads((ROOT / "locales" / language / "main.json").read_text(encoding="utf-8"))
        assert set(told["settingsCategories"]) == headings


def test_example_workflows_use_the_nodes_as_they_are_and_have_their_pictures(schemas):
    used = set()
    for file in (ROOT / "example_workflows").glob("*.json"):
        graph = json.loads(file.read_text())
        assert file.with_suffix(".jpg").is_file(), "the picture that ComfyUI shows of it"
        for node in graph["nodes"]:
            if node["type"] in ("LoadImage", "LoadVideo"):
                assert (ROOT / "example_workflows" / "pictures" / node["widgets_values"][0]).is_file()
            if node["type"] in schemas:
                used.add(node["type"])
                schema = schemas[node["type"]]
                assert {each["name"] for each in node["inputs"]} == {each.id for each in schema.inputs}
                assert len(node["outputs"]) == len(schema.outputs)
    assert used == set(schemas)


def test_the_requirements_are_the_light_ones():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == project["dependencies"]


def test_nobody_pickles_evaluates_or_starts_processes():
    for file in (ROOT / "plugins" / "comfyui").glob("*.py"):
        assert not re.search(r"\b(pickle|eval\(|exec\(|subprocess|os\.system|Popen)", file.read_text()), file
