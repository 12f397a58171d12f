"""Example workflows in a real browser.

With `COMFYUI_SCREENSHOTS` pictures of the interface are left in that folder.
"""

import json
import os
import re
from pathlib import Path

import pytest

from sa2va_host import list_workers, stop_worker

from .browser import CHROMIUM, opened_page
from .workflows import FOLDER, LATER, LOSSLESS, MARKUP, as_saved_before, examples, node

pytest.importorskip("playwright.sync_api")
SCREENSHOTS = os.environ.get("COMFYUI_SCREENSHOTS", "")

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="there is no chromium")


@pytest.fixture(scope="module")
def page(server):
    """ComfyUI's page, loaded."""
    with opened_page(server) as opened:
        yield opened


@pytest.mark.parametrize(
    "file", examples() if SCREENSHOTS else [FOLDER / "masks_from_words.json"], ids=lambda file: file.stem
)
def test_a_workflow_is_loaded_drawn_and_run(server, page, file):
    page.evaluate("graph => window.app.loadGraphData(graph)", json.loads(file.read_text()))
    page.wait_for_timeout(1000)
    page.keyboard.press("Escape")
    titles = page.evaluate("() => window.app.graph._nodes.map(node => node.title)")
    assert any(title.startswith("Sa2VA ") for title in titles)
    assert page.evaluate("() => window.app.graph._nodes.filter(node => node.has_errors).length") == 0
    before = len(server.get("/history"))
    page.evaluate("() => window.app.queuePrompt(0)")
    while len(server.get("/history")) == before:
        page.wait_for_timeout(200)
    (run,) = list(server.get("/history?max_items=1").values())
    assert run["status"]["status_str"] == "success"
    page.wait_for_timeout(3000)
    assert page.errors == []
    if file.stem == "masks_from_words":
        shown = page.evaluate(
            "() => window.app.graph._nodes.find(node => node.type == 'Sa2VAImageSegmentation')"
            ".widgets.find(widget => widget.name == '$$node-text-preview')?.value"
        )
        assert re.search(r"^sa2va-tiny[a-z, ]*: [0-9.]+ s.*\nThey are ", str(shown)), shown
    if SCREENSHOTS:
        page.evaluate("() => window.app.canvas.deselectAll && window.app.canvas.deselectAll()")
        page.evaluate("() => Object.assign(window.app.canvas.ds, {scale: 0.82, offset: [110, 130]})")
        page.evaluate("() => window.app.canvas.setDirty(true, true)")
        page.wait_for_timeout(500)
        page.screenshot(path=Path(SCREENSHOTS) / f"{file.stem}.png")


def test_a_workflow_from_before_the_later_inputs_has_their_defaults(page):
    graph = as_saved_before(FOLDER / "follow_in_a_video.json")
    page.evaluate("graph => window.app.loadGraphData(graph)", graph)
    page.wait_for_timeout(1000)
    values = page.evaluate(
        "() => Object.fromEntries(window.app.graph._nodes.find(node => node.type == 'Sa2VAVideoSegmentation')"
        ".widgets.map(widget => [widget.name, widget.value]))"
    )
    later = {name: values[name] for name in values if name in LATER}
    assert later == {
        "key_frame_sampling": "first",
        "condition_on": "vectors",
        "ask_again": "never",
        "ask_again_every": 100,
        "preview_opacity": 0.4,
        "preview_fps": 0,
        "max_objects": 0,
    }
    assert (values["prompt"], values["threshold"], values["key_frames"]) == ("the blue square", 0.7, 5)


def test_a_seed_stays_as_it_is_unless_the_workflow_says_otherwise(page):
    # What follows the seed; newer front ends call that widget by the value that it begins with.
    control = "widgets[widgets.findIndex(widget => widget.name == 'seed') + 1]"
    read = f"() => {{ const widgets = window.app.graph._nodes[0].widgets; return {control}.value; }}"
    page.evaluate("() => window.app.graph.clear()")
    page.evaluate("() => window.app.graph.add(LiteGraph.createNode('Sa2VAModelOptions'))")
    assert page.evaluate(read) == "fixed"
    saved = page.evaluate(
        f"() => {{ const widgets = window.app.graph._nodes[0].widgets; {control}.value = 'increment';"
        " return window.app.graph.serialize(); }"
    )
    page.evaluate("graph => window.app.loadGraphData(graph)", saved)
    page.wait_for_timeout(1000)
    assert page.evaluate(read) == "increment"


def test_the_settings_are_there(page):
    read = "name => window.app.ui.settings.getSettingValue(name)"
    assert page.evaluate(read, "Sa2VA.OldNames") is True


def test_the_page_shows_whether_workflows_are_trusted_and_cannot_change_it(server, page):
    assert server.get("/sa2va/settings")["trust_workflows"] is True
    shown = page.evaluate(
        "async () => (await window.app.ui.settings.getSettingValue('Sa2VA.TrustWorkflows')) ?? 'not stored'"
    )
    assert shown == "not stored"
    page.evaluate("() => window.app.extensionManager.command.execute('Comfy.ShowSettingsDialog')")
    page.get_by_text("Sa2VA", exact=True).last.click()
    text = page.locator("#sa2va-trust-workflows")
    text.wait_for()
    page.wait_for_function("() => document.querySelector('#sa2va-trust-workflows').textContent")
    assert text.text_content() == "on (SA2VA_TRUST_WORKFLOWS)"
    if SCREENSHOTS:
        page.screenshot(path=Path(SCREENSHOTS) / "settings.png")
    page.keyboard.press("Escape")


def test_a_node_shows_its_help_page(server, page):
    pack = page.evaluate("() => LiteGraph.registered_node_types['Sa2VAUnload'].nodeData.python_module")
    folder = pack.removeprefix("custom_nodes.")
    text = page.evaluate(
        "async path => (await fetch(path)).text()", f"/extensions/{folder}/docs/Sa2VAUnload.md"
    )
    assert text.startswith("# Sa2VA Unload")


def test_text_is_shown_as_text(server, page, scripted):
    """The model's name in an error, then a prompt, and the answer that repeats it."""
    nodes = {
        "1": node("LoadImage", image=LOSSLESS),
        "2": node("Sa2VAImageSegmentation", model=MARKUP, image=["1", 0], prompt=MARKUP, threshold=0.5),
        "20": node("PreviewAny", source=["2", 0]),
        "3": scripted,
        "4": node("Sa2VAChat", model="scripted:", prompt=MARKUP, video_frames=5, options=["3", 0]),
        "5": node("PreviewAny", source=["4", 0]),
    }
    for wanted in (("1", "2", "20"), ("3", "4", "5")):
        chosen = {key: nodes[key] for key in wanted}
        page.evaluate("nodes => window.app.loadApiJson(nodes, 'hostile')", chosen)
        page.wait_for_timeout(1000)
        before = len(server.get("/history"))
        page.evaluate("() => window.app.queuePrompt(0)")
        while len(server.get("/history")) == before:
            page.wait_for_timeout(200)
        page.wait_for_timeout(3000)
        (run,) = server.get("/history?max_items=1").values()
        assert MARKUP in json.dumps(run, ensure_ascii=False).replace('\\"', '"')
        if SCREENSHOTS:
            page.screenshot(path=Path(SCREENSHOTS) / f"hostile_{wanted[0]}.png")
        assert page.evaluate("() => window.hacked ?? 'no'") == "no"
        page.keyboard.press("Escape")
    for worker in list_workers():
        stop_worker(worker, force=True)
