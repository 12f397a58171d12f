"""Workflows, uploads and requests of somebody who means harm: each gets one sentence, and nothing else happens."""

import json
import os
import re
import time
import urllib.error
import urllib.request
import uuid
from itertools import count
from pathlib import Path

import psutil
import pytest

from sa2va_host import list_workers, stop_worker

from .comfyui import prepare, serving
from .conftest import DIRECTORY, PYTHON, wait_for_worker
from .test_server import CLIP
from .workflows import MARKUP, MODEL, PROMPT, graph, node, options

SENTENCE = 1000
"""Characters; more is no sentence but somebody's input."""
HEADS = {
    "ffconcat": "ffconcat version 1.0\nfile {clip}\n",
    "m3u": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{clip}\n#EXT-X-ENDLIST\n",
    "PostScript": "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
}
_numbers = count()


@pytest.fixture(scope="module")
def traps(tmp_path_factory):
    """A folder of programs that leave a file `sprung` there, each under a name that somebody may start."""
    folder = tmp_path_factory.mktemp("traps")
    for name in ("gs", "python-of-a-workflow"):
        program = folder / name
        program.write_text(f"#!/bin/sh\ntouch {folder}/sprung\n")
        program.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def hostile(environment, traps, tmp_path_factory):
    """A server whose user trusts no workflow."""
    base = prepare(tmp_path_factory.mktemp("hostile"))
    (base / "models" / "sa2va").mkdir()
    path = f"{traps}{os.pathsep}{os.environ['PATH']}"
    with serving(
        Path(DIRECTORY),
        base,
        python=PYTHON,
        environment=environment | {"SA2VA_TRUST_WORKFLOWS": "", "PATH": path},
    ) as started:
        yield started
    for worker in list_workers():
        stop_worker(worker, force=True)


@pytest.fixture(scope="module")
def nodes(hostile):
    """That server's `/object_info`."""
    return hostile.get("/object_info")


@pytest.fixture
def unharmed(hostile, traps):
    """The server; afterwards it lives, has made no file and no process, and answers a good workflow."""
    files = files_of(hostile)
    yield hostile
    assert hostile.process.poll() is None, hostile.tail()
    run = hostile.run(good())
    assert run.status == "success", run.error
    assert not (traps / "sprung").exists()
    assert files_of(hostile) == files
    workers = {worker.pid for worker in list_workers()}
    assert len(workers) <= 1
    assert {child.pid for child in psutil.Process(hostile.process.pid).children(recursive=True)} <= workers
    assert hostile.get("/sa2va/settings")["trust_workflows"] is False


def files_of(server):
    """What lies in the server's folders, but for what ComfyUI itself writes."""
    folders = (server.base / name for name in ("custom_nodes", "models", "input"))
    return {file for folder in folders for file in folder.glob("**/*")}


def good():
    """A workflow that nothing has an answer to yet."""
    return graph(prompt=f"{PROMPT} {next(_numbers)}")


def asked(**inputs):
    """A graph with other inputs of Image Segmentation."""
    nodes = graph()
    nodes["3"]["inputs"] |= inputs
    return nodes


def with_options(**changed):
    return asked(options=["9", 0]) | {"9": options(**changed)}


def refusal(server, nodes):
    """Why a workflow is refused: in a sentence of ComfyUI's before it runs, or in a typed one of ours on the node."""
    try:
        prompt_id = server.queue(nodes)
    except urllib.error.HTTPError as refused:
        if refused.code != 400:
            raise
        answer = json.loads(refused.read())
        assert answer["error"]["type"] != "prompt_no_outputs", "the workflow is none"
        return json.dumps(answer, ensure_ascii=False)
    run = server.wait(prompt_id)
    assert run.status == "error"
    kind = run.messages["execution_error"]["exception_type"]
    assert kind.startswith("sa2va_host.errors."), (kind, run.error)
    assert 10 < len(run.error) < SENTENCE
    assert run.error.isprintable(), run.error
    assert run.error.endswith((".", "`"))
    return run.error


def upload(server, name, content, folder=""):
    """Put a file into the server's inputs, as anybody may who reaches its port; the answer."""
    boundary = uuid.uuid4().hex
    parts = [f'name="image"; filename="{name}"\r\nContent-Type: image/png', 'name="subfolder"']
    bodies = [content, folder.encode()]
    body = b"".join(
        f"--{boundary}\r\nContent-Disposition: form-data; {part}\r\n\r\n".encode() + each + b"\r\n"
        for part, each in zip(parts, bodies, strict=True)
    )
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}/upload/image",
        body + f"--{boundary}--\r\n".encode(),
        {"Content-Type": f"multipart/form-data; boundary={boundary}"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        return json.loads(answer.read())


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ({"trust_remote_code": True}, "run code that a checkpoint brings"),
        ({"trust_remote_code": True, "revision": "a" * 40}, "run code that a checkpoint brings"),
        ({"worker_python": "{traps}/python-of-a-workflow"}, "run the program"),
        ({"worker_python": " {traps}/python-of-a-workflow "}, "run the program"),
        ({"attention": "kernels-community/flash-attn"}, "fetch and run the kernel|not in"),
        ({"attention": "sdpa\n"}, "fetch and run the kernel|not in"),
    ],
)
def test_a_workflow_that_nobody_trusts_runs_no_code(unharmed, traps, what, words):
    said = {name: each.format(traps=traps) if isinstance(each, str) else each for name, each in what.items()}
    assert re.search(words, refusal(unharmed, with_options(**said)))


def test_trust_cannot_be_switched_on_through_the_server(unharmed):
    unharmed.post("/settings/Sa2VA.TrustWorkflows", True)
    unharmed.post("/settings", {"Sa2VA.TrustWorkflows": True, "Sa2VA": {"TrustWorkflows": True}})
    with pytest.raises(urllib.error.HTTPError, match="405"):
        unharmed.post("/sa2va/settings", {"trust_workflows": True})
    assert unharmed.get("/sa2va/settings?trust_workflows=true")["trust_workflows"] is False
    assert "no workflow may" in refusal(unharmed, with_options(trust_remote_code=True))


@pytest.mark.parametrize(
    "name",
    [
        "../../../../etc",
        "models/../../../etc/passwd",
        "/etc",
        "/proc/self/fd",
        "~root",
        "ORG/../..",
        "a\0b",
        "/tmp/a\0b",
        "/dev/zero",
        "a" * 10_000,
        "/" + "a/" * 5_000,
        "\x1b[2J\x1b]0;title\x07",
        "ORG/\x1b[31mred",
        "ORG/NAME (download, 1.0 GB)\n",
        "\ud800",
        "-rf",
        "https://example.com/model",
        " ",
        MARKUP,
        "linked",
        "nobody/linked",
        "looped",
    ],
    ids=lambda name: ascii(name)[:40].replace("/", ":"),
)
def test_a_model_of_any_name_is_one_sentence(unharmed, name, tmp_path):
    models = unharmed.base / "models" / "sa2va"
    (models / "linked").symlink_to("/etc")
    (models / "looped").symlink_to("looped")
    try:
        assert refusal(unharmed, asked(model=name))
    finally:
        (models / "linked").unlink()
        (models / "looped").unlink()


@pytest.mark.parametrize(
    "value",
    [
        "hello",
        {"device": "cpu"},
        {"__value__": ["a", "b"]},
        {"__value__": {"a": 1}},
        5,
        True,
        ["1"],
        ["1", 0],
        [[], {}],
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["options", "image"])
def test_a_value_where_a_wire_belongs_is_one_sentence(unharmed, name, value):
    if (name, value) == ("image", ["1", 0]):
        pytest.skip("that is an image")
    said = refusal(unharmed, asked(**{name: value}))
    assert name in said or "Exception when validating" in said  # ComfyUI's, of a link that is none


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("Sa2VAMasksFromTracks", "tracks", "hello"),
        ("Sa2VARefineEdges", "tracks", {"names": ["a"], "rows": [[0]]}),
        ("Sa2VARefineEdges", "mask", {"__value__": [[[0.5]]]}),
        ("Sa2VAVideoSegmentation", "video", "/etc/passwd"),
        ("Sa2VAChat", "video", {"__value__": ["/etc/passwd"]}),
    ],
)
def test_a_value_where_a_wire_belongs_is_one_sentence_on_every_node(unharmed, nodes, kind, name, value):
    assert name in refusal(unharmed, of_kind(nodes, kind, **{name: value}))


@pytest.mark.parametrize(
    ("kind", "name"), [("Sa2VAMasksFromTracks", "tracks"), ("Sa2VAChat", "options"), ("Sa2VAChat", "video")]
)
def test_a_wire_of_another_type_that_came_through_a_node_for_any_is_one_sentence(unharmed, nodes, kind, name):
    made = of_kind(nodes, kind, **{name: ["8", 0]})
    made["8"] = node("Sa2VAUnload", anything=["1", 0], force=False)
    assert name in refusal(unharmed, made)


def of_kind(nodes, kind, **inputs):
    """A graph with one such node at its end, saved, whose widgets stand at their defaults."""
    about = nodes[kind]["input"]
    given = {}
    for name, (form, *more) in {**about.get("required", {}), **about.get("optional", {})}.items():
        if more and "default" in more[0]:
            given[name] = more[0]["default"]
        elif form == "IMAGE" and name == "image":
            given[name] = ["2", 0]
    made = {key: each for key, each in graph().items() if key not in ("3", "text")}
    given |= {"model": MODEL} if "model" in given else {}
    made["7"] = node(kind, **given | inputs)
    made["70"] = node("PreviewAny", source=["7", 0])
    return made


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("threshold", [1, 2, 3]),
        ("threshold", {"a": 1}),
        ("threshold", -0.5),
        ("threshold", float("nan")),
        ("threshold", float("inf")),
        ("threshold", "-inf"),
        ("threshold", "nan"),
        ("threshold", 10**400),
        ("threshold", None),
        ("model", 5),
        ("model", {"__value__": ["a"]}),
        ("model", True),
        ("model", None),
        ("prompt", None),
        ("prompt", {"__value__": []}),
    ],
    ids=lambda value: str(value)[:20],
)
def test_an_input_of_another_type_is_one_sentence(unharmed, name, value):
    nodes = asked(**{name: value})
    if (name, value) in [("prompt", None), ("prompt", {"__value__": []})]:
        # ComfyUI turns anything into words for an input of words.
        assert unharmed.run(nodes).status in ("success", "error")
        return
    assert refusal(unharmed, nodes)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_new_tokens", 10**30),
        ("max_new_tokens", -1),
        ("minutes", float("nan")),
        ("minutes", -5.0),
        ("temperature", float("nan")),
        ("top_p", 0.0),
        ("seed", 1 << 200),
        ("seed", -1),
        ("top_k", -3),
        ("min_p", float("nan")),
        ("repetition_penalty", float("inf")),
        ("quantization", "1bit"),
        ("dtype", "float8; rm"),
        ("keep_alive", "always"),
        ("device", "cuda:../../x"),
        ("device", "a" * 10_000),
        ("device", "\x1b[31m"),
        ("revision", "a" * 10_000),
        ("worker_python", "a" * 10_000),
    ],
    ids=lambda value: ascii(value)[:20].replace("/", ":"),
)
def test_an_option_that_is_none_is_one_sentence(unharmed, name, value):
    assert refusal(unharmed, with_options(do_sample=True, **{name: value}))


@pytest.mark.parametrize("revision", ["../../../etc/passwd", "\0", "\x1b[31m", "\ud800"], ids=ascii)
def test_a_revision_that_is_none_is_one_sentence(unharmed, revision):
    nodes = with_options(revision=revision)
    nodes["3"]["inputs"]["model"] = "nobody/model"
    assert refusal(unharmed, nodes)


@pytest.mark.parametrize(
    ("name", "kind", "value"),
    [
        ("threshold", "PrimitiveFloat", -1.0),
        ("threshold", "PrimitiveFloat", "nan"),
        ("threshold", "PrimitiveFloat", 1e9),
        ("prompt", "PrimitiveString", "\n \t\n"),
    ],
)
def test_a_number_over_a_wire_is_held_to_the_same_bounds(unharmed, name, kind, value):
    nodes = asked(**{name: ["8", 0]})
    nodes["8"] = node(kind, value=value)
    assert name in refusal(unharmed, nodes)


@pytest.mark.parametrize(("name", "value"), [("grow", 10**9), ("smallest_area", -1), ("objects", "../x")])
def test_masks_from_tracks_holds_numbers_over_a_wire_to_the_same_bounds(unharmed, nodes, name, value):
    made = of_kind(nodes, "Sa2VAMasksFromTracks", tracks=["3", 5], **{name: ["8", 0]}) | {"3": graph()["3"]}
    made["8"] = node("PrimitiveString" if isinstance(value, str) else "PrimitiveInt", value=value)
    assert re.search("object|" + name, refusal(unharmed, made))


@pytest.mark.parametrize("called", ["clip.mp4", "clip.ffconcat", "clip.m3u8", "clip.webm"])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("kind", ["Sa2VAVideoSegmentation", "Sa2VAChat"])
def test_an_uploaded_video_leads_to_no_other_file(hostile, nodes, traps, head, called, kind):
    content = HEADS[head].format(clip=CLIP.name).encode()
    name = upload(hostile, called, content)["name"]
    made = of_kind(nodes, kind, video=["5", 0]) | {"5": node("LoadVideo", file=name)}
    (hostile.base / "input" / name).touch()
    said = refusal(hostile, made)
    (hostile.base / "input" / name).unlink()
    assert re.search("is a playlist" if head != "PostScript" else "cannot be decoded", said)
    assert not (traps / "sprung").exists()


def test_a_prompt_of_a_megabyte_is_one_sentence(unharmed):
    assert refusal(unharmed, asked(prompt="the red square and " * 55_000))


def test_ten_thousand_lines_are_one_sentence(unharmed):
    assert refusal(unharmed, asked(prompt="the red square\n" * 10_000))


@pytest.mark.parametrize(
    "extra",
    [
        {"extra_pnginfo": {"workflow": MARKUP}},
        {"extra_pnginfo": ["a"]},
        {"options": "x", "preview_method": "y", "trust_workflows": True},
    ],
    ids=["workflow", "list", "other"],
)
def test_extra_data_changes_nothing(unharmed, extra):
    try:
        prompt_id = unharmed.post("/prompt", {"prompt": good(), "extra_data": extra})["prompt_id"]
    except urllib.error.HTTPError:  # ComfyUI's own affair
        return
    assert unharmed.wait(prompt_id).status in ("success", "error")


def test_an_interrupt_while_the_model_is_loaded_ends_the_node(unharmed):
    for worker in list_workers():
        stop_worker(worker, force=True)
    prompt_id = unharmed.queue(good())
    wait_for_worker(("starting", "loading"))
    unharmed.post("/interrupt", {})
    assert "execution_interrupted" in unharmed.wait(prompt_id).messages


def test_a_thousand_workflows_can_be_queued_and_taken_back(unharmed):
    for _ in range(1000):
        unharmed.queue(good())
    unharmed.post("/queue", {"clear": True})
    unharmed.post("/interrupt", {})
    while any(unharmed.get("/queue").values()):
        time.sleep(0.1)
