"""A real server with the pack: workflows, masks, interrupting, freeing, a worker that is killed."""

import json
import os
import signal
import time
import urllib.error

import av
import numpy as np
import pytest
from PIL import Image

from sa2va_host import Sa2VA, list_workers, stop_worker

from .comfyui import PACK, ROOT
from .conftest import wait_for_worker
from .workflows import (
    FOLDER,
    MODEL,
    PICTURE,
    PROMPT,
    as_saved_before,
    examples,
    graph,
    long_call,
    node,
    options,
)

WORKING = ("encoding", "generating", "tracking")
CLIP = ROOT / "example_workflows" / "pictures" / "crossing.mp4"


def test_the_pack_loads_and_says_where_it_is(server, nodes):
    ours = {name: each for name, each in nodes.items() if each["category"].startswith("Sa2VA")}
    assert len(ours) == 11
    assert {each["python_module"] for each in ours.values()} == {f"custom_nodes.{PACK}"}
    log = server.log.read_text()
    assert not [line for line in log.splitlines() if "IMPORT FAILED" in line and PACK in line]


def test_locales_help_pages_and_templates_are_served(server):
    translations = server.get("/i18n")
    assert translations["zh"]["nodeDefs"]["Sa2VAUnload"]["display_name"] == "Sa2VA 卸载"
    templates = server.get("/workflow_templates")[PACK]
    assert set(templates) == {file.stem for file in examples()}
    for name in templates:
        assert server.get(f"/api/workflow_templates/{PACK}/{name}.json")["nodes"]


@pytest.mark.parametrize("file", examples(), ids=lambda file: file.stem)
def test_every_example_workflow_runs(server, prompt_of, file):
    run = server.run(prompt_of(file))
    assert run.status == "success", run.error
    assert run.outputs


@pytest.mark.parametrize("name", ["follow_in_a_video", "ask_then_unload"])
def test_workflows_from_before_the_later_inputs_run(server, prompt_of, tmp_path, name):
    file = tmp_path / f"{name}.json"
    file.write_text(json.dumps(as_saved_before(FOLDER / file.name)))
    run = server.run(prompt_of(file))
    assert run.status == "success", run.error


def test_masks_are_those_of_the_python_client_bit_for_bit(server):
    run = server.run(graph(save=True))
    assert run.status == "success", run.error
    with Sa2VA(MODEL) as sa:
        expected = sa.segment(PICTURE, PROMPT).masks(0.5)
    files = server.saved(run, "5")
    assert len(files) == len(expected) == 2
    for file, mask in zip(files, expected, strict=True):
        assert np.array_equal(np.asarray(Image.open(file))[:, :, 0], mask * np.uint8(255))


@pytest.mark.parametrize(
    ("how", "asked"),
    [
        ({}, {}),
        ({"key_frame_sampling": "uniform"}, {"key_frames": "uniform:5"}),
        ({"condition_on": "masks"}, {"condition_on": "masks"}),
        ({"ask_again": "every", "ask_again_every": 7}, {"ask_again": "every:7"}),
    ],
    ids=["first", "uniform", "masks", "every"],
)
def test_tracks_in_a_video_are_those_of_the_python_client_bit_for_bit(server, how, asked):
    prompt = "the blue square"
    nodes = {
        "1": node("LoadVideo", file=CLIP.name),
        "2": node(
            "Sa2VAVideoSegmentation",
            **{"model": MODEL, "video": ["1", 0], "prompt": prompt, "threshold": 0.7, "key_frames": 5} | how,
        ),
        "3": node("MaskToImage", mask=["2", 1]),
        "4": node("SaveImage", images=["3", 0], filename_prefix="track"),
    }
    run = server.run(nodes)
    assert run.status == "success", run.error
    with av.open(str(CLIP)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with Sa2VA(MODEL) as sa:
        expected = np.asarray(sa.segment_video(frames, prompt, **asked).masks(0.7).any(axis=0))
    files = server.saved(run, "4")
    assert len(files) == len(expected) == len(frames)
    assert expected.any()
    for file, mask in zip(files, expected, strict=True):
        assert np.array_equal(np.asarray(Image.open(file))[:, :, 0], mask * np.uint8(255))


def test_nothing_found_does_not_break_what_follows(server):
    run = server.run(graph(prompt="the yellow star", save=True))
    assert run.status == "success", run.error
    (file,) = server.saved(run, "5")
    assert not np.asarray(Image.open(file)).any()


EMPTY = "The prompt is empty. Say what to look for, such as 'the red circle'."


def refused(server, nodes):
    """What the server says of node 3 when it refuses a workflow before it runs."""
    with pytest.raises(urllib.error.HTTPError) as error:
        server.queue(nodes)
    errors = json.loads(error.value.read())["node_errors"]["3"]["errors"]
    return {each["details"].partition(" - ")[2] for each in errors}


def test_an_empty_prompt_is_one_sentence_before_anything_runs_and_over_a_wire_when_it_does(server):
    assert refused(server, graph(prompt=" ")) == {EMPTY}
    nodes = graph() | {"9": node("PrimitiveStringMultiline", value=" ")}
    nodes["3"]["inputs"]["prompt"] = ["9", 0]
    run = server.run(nodes)
    assert (run.status, run.error) == ("error", EMPTY)


def video_graph(**changed):
    asked = {
        "model": MODEL,
        "prompt": "the blue square",
        "threshold": 0.5,
        "key_frames": 5,
        "video": ["1", 0],
    }
    return {
        "1": node("LoadVideo", file=CLIP.name),
        "3": node("Sa2VAVideoSegmentation", **asked | changed),
        "4": node("PreviewAny", source=["3", 0]),
    }


def test_frames_and_video_both_or_neither_are_refused_before_anything_is_decoded(server):
    nodes = video_graph(frames=["2", 0]) | {"2": node("GetVideoComponents", video=["1", 0])}
    assert refused(server, nodes) == {"Both frames and video are connected. Connect one of them."}
    nodes = video_graph()
    del nodes["3"]["inputs"]["video"]
    assert refused(server, nodes) == {"Neither frames nor video is connected. Connect one of them."}


def test_a_video_is_seen_on_its_node_and_as_a_video(server):
    nodes = video_graph() | {
        "5": node("SaveVideo", video=["3", 4], filename_prefix="overlay", format="auto", codec="auto"),
        "6": node("PreviewImage", images=["3", 3]),
    }
    run = server.run(nodes)
    assert run.status == "success", run.error
    lengths = []
    for each in ("3", "5"):
        (film,) = server.saved(run, each)
        with av.open(str(film)) as container:
            lengths.append(len(list(container.decode(video=0))))
    assert lengths == [len(server.saved(run, "6"))] * 2
    assert run.outputs["3"]["animated"] == [True]


def test_a_cut_out_is_transparent_where_there_is_no_mask(server):
    nodes = graph() | {
        "4": node("SaveImage", images=["3", 9], filename_prefix="cut"),
        "5": node("MaskToImage", mask=["3", 1]),
        "6": node("SaveImage", images=["5", 0], filename_prefix="whole"),
    }
    run = server.run(nodes)
    assert run.status == "success", run.error
    cut, mask = (np.asarray(Image.open(*server.saved(run, each))) for each in ("4", "6"))
    assert np.array_equal(cut[:, :, 3], mask[:, :, 0])
    assert 0 < (cut[:, :, 3] > 0).mean() < 1


def test_a_changed_threshold_does_not_run_the_model_again(server):
    def calls():
        (worker,) = list_workers()
        return worker.finished_calls

    nodes = graph(amount=2)
    assert server.run(nodes).status == "success"
    before = calls()
    for threshold in (0.4, 0.6):
        nodes["6"] = node(
            "Sa2VAMasksFromTracks",
            tracks=["3", 5],
            threshold=threshold,
            objects="1",
            combine="union",
            grow=0,
            fill_holes=False,
            smallest_area=0,
            invert=False,
        )
        run = server.run(nodes)
        assert run.status == "success", run.error
    assert calls() == before


def test_no_dial_and_no_wire_of_the_segmentation_nodes_runs_the_model_again(server):
    def calls():
        (worker,) = list_workers()
        return worker.finished_calls

    def changed():
        """The same question once more, with another dial, seed or wire each time."""
        nodes = graph(amount=3, prompt=prompt, options=["9", 0])
        asked = {"model": MODEL, "prompt": prompt, "threshold": 0.5, "key_frames": 2, "options": ["9", 0]}
        nodes["7"] = node("Sa2VAVideoSegmentation", frames=["2", 0], **asked)
        nodes["8"] = node("Sa2VAMasksFromTracks", tracks=["7", 2], threshold=0.5, objects="", combine="union")
        nodes["8"]["inputs"] |= {"grow": 0, "fill_holes": False, "smallest_area": 0, "invert": False}
        nodes["9"] = options()
        yield nodes
        for each in ("3", "7"):
            nodes[each]["inputs"]["threshold"] = 0.3
            yield nodes
        nodes["8"]["inputs"] |= {"grow": 3, "fill_holes": True, "objects": "1"}
        yield nodes
        for seed in (1, 2):
            nodes["9"]["inputs"]["seed"] = seed
            yield nodes
        for number, mask in enumerate((["3", 1], ["3", 2], ["7", 1]), start=20):
            nodes[str(number)] = node("MaskPreview", mask=mask)
            yield nodes

    prompt = "the blue triangle and the red square"
    counts = []
    for nodes in changed():
        run = server.run(nodes)
        assert run.status == "success", run.error
        counts.append(calls())
    assert len(counts) == 9
    assert set(counts) == {counts[0]}
    server.post("/free", {"unload_models": True, "free_memory": True})
    while list_workers():
        time.sleep(0.05)
    assert server.run(nodes).status == "success"
    assert calls() == 2, "three times the same image is one question, and the video another"


def test_connecting_an_output_later_gives_its_masks(server):
    server.run(graph(amount=3))
    run = server.run(graph(amount=3, save=True))
    assert all(np.asarray(Image.open(file)).any() for file in server.saved(run, "5"))


def test_an_interrupt_ends_the_node_within_a_second_and_the_next_run_works(server):
    prompt_id = server.queue(long_call(200))
    wait_for_worker(WORKING)
    begun = time.time()
    server.post("/interrupt", {})
    run = server.wait(prompt_id)
    assert run.messages["execution_interrupted"]["timestamp"] / 1000 - begun < 1
    assert server.run(graph(prompt="the blue triangle")).status == "success"


def test_a_step_that_hangs_is_ended_within_seconds_of_an_interrupt(server, scripted):
    nodes = graph(prompt="objects=1 sleep=600 at=1 steps=2", model="scripted:", options=["9", 0])
    nodes["9"] = scripted
    prompt_id = server.queue(nodes)
    hanging = wait_for_worker(("generating",))
    begun = time.time()
    server.post("/interrupt", {})
    run = server.wait(prompt_id)
    assert run.messages["execution_interrupted"]["timestamp"] / 1000 - begun < 1
    while any(worker.pid == hanging for worker in list_workers()):
        time.sleep(0.02)
    assert time.time() - begun < 4
    nodes["3"]["inputs"]["prompt"] = "objects=1"
    assert server.run(nodes).status == "success"
    for worker in list_workers():
        stop_worker(worker, force=True)


def test_a_worker_that_is_killed_is_one_sentence_and_the_next_run_works(server):
    prompt_id = server.queue(long_call(201))
    os.kill(wait_for_worker(WORKING), signal.SIGKILL)
    run = server.wait(prompt_id)
    assert "signal SIGKILL" in run.error
    assert "The next call starts a new worker." in run.error
    assert server.run(graph(prompt="the red square")).status == "success"


def test_freeing_memory_in_comfyui_ends_the_worker(server):
    assert server.run(graph(prompt="the red square, the blue triangle")).status == "success"
    assert list_workers()
    server.post("/free", {"unload_models": True, "free_memory": True})
    deadline = time.monotonic() + 20
    while list_workers() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list_workers() == []


def test_old_workflows_run(server):
    common = {
        "model_name": MODEL,
        "segmentation_prompt": PROMPT,
        "threshold": 0.5,
        "use_8bit": True,
        "use_flash_attn": True,
        "unload": False,
    }
    morph = {"morph": "closing", "erode_kernel": 3, "dilate_kernel": 3, "iterations": 1}
    nodes = graph(amount=2)
    del nodes["3"], nodes["text"]
    nodes["7"] = node("XJSa2VAImageSegmentation", image=["2", 0], **common, **morph)
    nodes["8"] = node("XJSa2VAVideoSegmentation", images=["2", 0], **common, **morph)
    for number in ("7", "8"):
        nodes[f"{number}0"] = node("MaskToImage", mask=[number, 1])
        nodes[f"{number}1"] = node("SaveImage", images=[f"{number}0", 0], filename_prefix="old")
    run = server.run(nodes)
    assert run.status == "success", run.error
    for number in ("71", "81"):
        assert all(np.asarray(Image.open(file)).any() for file in server.saved(run, number))


def test_an_unknown_model_names_the_command(server):
    nodes = graph(amount=1)
    nodes["3"]["inputs"]["model"] = "ByteDance/Sa2VA-8B"
    run = server.run(nodes)
    assert "pull ByteDance/Sa2VA-8B`" in run.error


def test_a_request_that_the_server_refuses_is_refused_by_the_schema(server):
    nodes = graph()
    nodes["3"]["inputs"]["threshold"] = 1.5
    with pytest.raises(urllib.error.HTTPError) as refused:
        server.queue(nodes)
    assert "value_bigger_than_max" in json.dumps(json.loads(refused.value.read()))
