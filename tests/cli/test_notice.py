"""Where nobody named a model and the bundled one answers, every front end says once a run that it knows drawn shapes
only, and which command fetches a checkpoint for this machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sa2va_host import Sa2VA
from sa2va_host.calls.outcomes import ChatAnswer
from sa2va_host.config import Settings
from sa2va_host.models.choice import choose
from sa2va_host.models.notice import notes_on
from sa2va_host.results import Segmentation
from sa2va_host.video.tracks import Track
from sa2va_plugins.cli.demo import CLIP, EXAMPLES

from .conftest import PROGRAM


@pytest.mark.parametrize(
    ("memory", "words"),
    [
        (0, ("sa2va pull ByteDance/Sa2VA-1B", "on the CPU, which is slow")),
        (8_000_000_000, ("sa2va pull ByteDance/Sa2VA-Qwen3-VL-4B", "--quantization 8bit")),
        (80_000_000_000, ("sa2va pull ByteDance/Sa2VA-", "the GPU has 80.0 GB")),
    ],
)
def test_the_note_names_the_command_that_fetches_a_checkpoint_for_this_machine(
    memory: int, words: tuple[str, ...]
) -> None:
    settings = Settings()
    (note,) = notes_on(choose(settings, lambda: memory), settings, lambda: memory)
    assert note.startswith("No model was named, so sa2va-tiny answers. It knows drawn shapes only")
    assert all(word in note for word in words)


def test_a_checkpoint_that_is_here_and_does_not_fit_is_named_with_the_options_that_make_it_fit(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "ByteDance" / "Sa2VA-Qwen3-VL-4B"
    folder.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (folder / name).write_bytes((BUNDLED / name).read_bytes())
    settings = Settings(model_folders=(str(tmp_path),))
    (note,) = notes_on(choose(settings, lambda: 8 * 10**9), settings, lambda: 8 * 10**9)
    assert "use --model ByteDance/Sa2VA-Qwen3-VL-4B --quantization 8bit" in note


BUNDLED = Path(__file__).parents[2] / "sa2va_worker" / "bundled" / "sa2va-tiny"


def test_a_model_that_was_named_needs_no_note() -> None:
    settings = Settings(model="sa2va-tiny")
    assert notes_on(choose(settings, lambda: 0), settings, lambda: 0) == ()


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """Of a user without settings and without a checkpoint, with one worker for all of this."""
    pytest.importorskip("transformers")
    with tempfile.TemporaryDirectory(prefix="sa2va-") as folder:
        made = {**os.environ, "SA2VA_RUN_DIR": f"{folder}/run", "SA2VA_DEVICE": "cpu"}
        yield made
        subprocess.run([*PROGRAM, "stop", "--all"], env=made, capture_output=True, check=False)


def sa2va(environment: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    """The command, which succeeds."""
    done = subprocess.run(
        [*PROGRAM, *map(str, arguments)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


SUNSET, STARS = EXAMPLES / "sunset.jpg", EXAMPLES / "stars.jpg"


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "command",
    [
        ["segment", SUNSET, STARS, "--prompt", "the red circle", "--prompt", "the star", "-o", "OUT"],
        ["chat", STARS, "--prompt", "how many stars are there?", "--prompt", "and how many circles?"],
        ["video", EXAMPLES / CLIP, "--prompt", "the blue square", "-o", "OUT"],
    ],
    ids=lambda command: command[0],
)
def test_a_command_says_it_once(environment: dict[str, str], tmp_path: Path, command: list[object]) -> None:
    if command[0] == "video":
        pytest.importorskip("av")

    def words(folder: str) -> list[object]:
        return [tmp_path / folder if word == "OUT" else word for word in command]

    plain = sa2va(environment, *words("plain"))
    assert plain.stderr.count("It knows drawn shapes only") == 1
    assert "It knows" not in plain.stdout
    told = sa2va(environment, *words("json"), "--json")
    (note,) = [each for each in json.loads(told.stdout)["notes"] if "It knows drawn shapes only" in each]
    assert "sa2va pull ByteDance/" in note
    assert f"sa2va: {note}\n" in plain.stderr
    named = sa2va(environment, *words("named"), "--model", "sa2va-tiny")
    assert "It knows" not in named.stderr + named.stdout


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_results_in_python_say_it(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SA2VA_RUN_DIR", environment["SA2VA_RUN_DIR"])
    frames = [SUNSET, SUNSET]
    with Sa2VA(device="cpu") as sa:
        with sa.track(frames, "the red circle") as track:
            list(track)
        answers: list[Segmentation | ChatAnswer | Track] = [
            sa.segment(SUNSET, "the red circle"),
            *sa.segment_each(SUNSET, ["the red circle", "the star"]),
            sa.segment_video(frames, "the red circle"),
            sa.chat("how many stars are there?", STARS),
            track,
        ]
    assert [sum("drawn shapes only" in note for note in answer.notes) for answer in answers] == [1] * 6
    with Sa2VA("sa2va-tiny", device="cpu") as sa:
        assert list(sa.segment(SUNSET, "the red circle").notes) == []
