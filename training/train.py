"""Train `sa2va-tiny` from nothing: `python -m training.train --out FOLDER`.

Every step's scenes come from a generator seeded with (seed, step), so a run that was broken off and resumed with
`--resume` sees the same data as an unbroken one. The exported weights are a running average over the steps.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoAttention, Sam2VideoMaskDecoder

from sa2va_worker.models.checkpoint import Checkpoint
from sa2va_worker.models.sa2va import Sa2VA
from training.batch import Batch, BatchMaker
from training.learner import Learner, Weights
from training.tiny import tie, write_folder, write_weights

QUESTIONS, CLIP_QUESTIONS, CLIP_FRAMES = 8, 4, 12
SIGHT_SHARE = 0.4
WAYS = ("token_to_image", "image_to_token")


class Plan:
    """How the run changes with time; `steps` in all, with `scenes` pictures (a fifth as many clips) in each.

    The first `sight` steps, and two fifths of the others, teach the vision tower alone what shapes and colours are and
    where things lie: seeing takes many more pictures than asking, and eight questions cost as much as four pictures.
    """

    def __init__(self, steps: int, scenes: int, sight: int) -> None:
        self.steps, self.scenes, self.sight = steps, scenes, sight

    def rate(self, step: int) -> float:
        """Share of the full learning rate: a warm-up over 100 steps, then a cosine down to a fiftieth."""
        warm = min(1.0, (step + 1) / 100)
        return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.steps))))

    def sees_only(self, step: int, chance: float) -> bool:
        """Whether a step teaches the vision tower alone; `chance` is a random number in 0..1."""
        return step < self.sight or chance < SIGHT_SHARE

    def clip_share(self, step: int) -> float:
        """Share of steps on clips: none in the first third after `sight`, then a quarter, then two fifths."""
        progress = self._progress(step)
        return 0.0 if progress < 1 / 3 else 0.25 if progress < 2 / 3 else 0.4

    def weights(self, step: int) -> Weights:
        """The helper leads for the first tenth after `sight`, fades by the quarter, and stays with 5 % to the end."""
        lead = min(1.0, max(0.0, (0.25 - self._progress(step)) / 0.15))
        return Weights(
            oracle=max(0.05, lead), align=0.5 + 1.5 * lead, cells=0.2 + 0.3 * lead, point=0.3 + 0.7 * lead
        )

    def _progress(self, step: int) -> float:
        return (step - self.sight) / max(1, self.steps - self.sight)


class Steps(Dataset[Batch]):
    """The batch of each step, made from nothing but (seed, step)."""

    def __init__(self, folder: Path, seed: int, plan: Plan) -> None:
        self._folder, self._seed, self._plan = folder, seed, plan
        self._maker: BatchMaker | None = None

    def __getitem__(self, step: int) -> Batch:
        if self._maker is None:
            self._maker = BatchMaker(self._folder)
        rng = np.random.default_rng([self._seed, step])
        if self._plan.sees_only(step, rng.random()):
            return self._maker.sights(rng, self._plan.scenes)
        if rng.random() < self._plan.clip_share(step):
            key_frames = int(rng.choice((1, 2, 3, 5), p=(0.25, 0.15, 0.2, 0.4)))
            return self._maker.clips(
                rng, max(1, self._plan.scenes // 5), CLIP_QUESTIONS, CLIP_FRAMES, key_frames
            )
        return self._maker.pictures(rng, self._plan.scenes, QUESTIONS)


class Average:
    """The running average of the weights, which is what gets exported."""

    def __init__(self, model: Sa2VA, keep: float = 0.999) -> None:
        self._keep = keep
        self.state = {name: value.detach().clone() for name, value in model.state_dict().items()}

    def update(self, model: Sa2VA, step: int) -> None:
        keep = min(self._keep, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            self.state[name].lerp_(value.detach(), 1 - keep)


class Optimizers:
    """Muon for the matrices inside the networks, AdamW for everything else (embeddings, biases, norms, filters)."""

    def __init__(self, learner: Learner, rate: float, matrix_rate: float) -> None:
        tables = {id(module.weight) for module in learner.modules() if isinstance(module, nn.Embedding)}
        # Muon would let the helper's vectors grow without end, and with them what the language model is asked to say.
        tables |= {id(parameter) for parameter in learner.oracle.parameters()}
        parameters = [parameter for parameter in learner.parameters() if parameter.requires_grad]
        matrices = [p for p in parameters if p.ndim == 2 and min(p.shape) > 1 and id(p) not in tables]
        taken = {id(parameter) for parameter in matrices}
        others = [parameter for parameter in parameters if id(parameter) not in taken]
        self._all: list[tuple[torch.optim.Optimizer, float]] = [
            (torch.optim.Muon(matrices, lr=matrix_rate, weight_decay=0.01), matrix_rate),
            (torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.01), rate),
        ]

    def step(self, share: float) -> None:
        """One step at `share` of the full learning rates, then forget the gradients."""
        for optimizer, rate in self._all:
            for group in optimizer.param_groups:
                group["lr"] = rate * share
            optimizer.step()
        self.clear()

    def clear(self) -> None:
        for optimizer, _ in self._all:
            optimizer.zero_grad(set_to_none=True)

    def state(self) -> list[dict[str, Any]]:
        return [optimizer.state_dict() for optimizer, _ in self._all]

    def restore(self, states: list[dict[str, Any]]) -> None:
        for (optimizer, _), state in zip(self._all, states, strict=True):
            optimizer.load_state_dict(state)


def fresh_model(folder: Path, seed: int) -> Sa2VA:
    """A new model for a folder's configuration.

    transformers starts every matrix at a standard deviation of 0.02, which is right for wide models and makes the
    signal of one as narrow as this vanish: PyTorch's own rule, by the number of inputs, is used instead.
    """
    torch.manual_seed(seed)
    model = Sa2VA(Checkpoint(folder).config)
    sam2, words = model.sam2.model, model.language.model.model
    with torch.no_grad():
        for module in model.modules():
            if isinstance(
                module, (nn.Linear, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.LayerNorm, nn.Embedding)
            ):
                module.reset_parameters()
        words.language_model.embed_tokens.weight.normal_(std=0.3)
        for layer in words.language_model.layers:
            # What the layers add must not drown what the pictures brought in.
            layer.get_submodule("self_attn.o_proj").get_parameter("weight").mul_(0.2)
            layer.get_submodule("mlp.down_proj").get_parameter("weight").mul_(0.2)
        words.visual.pos_embed.weight.copy_(0.5 * place_code(model))
        for parameter in (
            sam2.no_memory_embedding,
            sam2.memory_temporal_positional_encoding,
            sam2.no_object_pointer,
            sam2.vision_encoder.backbone.pos_embed,
            sam2.vision_encoder.backbone.pos_embed_window,
        ):
            parameter.normal_(std=0.1)
        shared = sam2.shared_image_embedding.positional_embedding
        sam2.prompt_encoder.shared_embedding.positional_embedding.copy_(shared)
        for block in sam2.memory_encoder.memory_fuser.layers:
            nn.init.constant_(block.get_parameter("scale"), 0.1)
        aim(sam2.mask_decoder)
    tie(model)
    return model


def place_code(model: Sa2VA) -> Tensor:
    """`[places, width]`: SAM2's code for the places that the vision tower's position table stands for.

    The two encoders then name places alike from the start; a random table is read out only after long training.
    """
    side = math.isqrt(model.language.model.model.visual.pos_embed.num_embeddings)
    middles = (torch.arange(side) + 0.5) / side
    rows, columns = torch.meshgrid(middles, middles, indexing="ij")
    places = torch.stack([columns, rows], dim=-1).reshape(1, 1, -1, 2)
    code: Tensor = model.sam2.model.shared_image_embedding(places)[0, 0]
    return code


def aim(decoder: Sam2VideoMaskDecoder) -> None:
    """Start the decoder's cross attention as a look at the place that a token names.

    Places are Fourier features of random frequencies, whose inner product falls off with distance like a Gaussian. With
    equal query and key projections, attention between a token that says a place and the picture starts out as that
    bump; found by training alone, it takes longer than all the rest.
    """
    transformer = decoder.transformer
    crossings = [getattr(layer, f"cross_attn_{way}") for layer in transformer.layers for way in WAYS]
    attention: Sam2VideoAttention
    for attention in [*crossings, transformer.final_attn_token_to_image]:
        nn.init.orthogonal_(attention.q_proj.weight, gain=1.7)
        attention.k_proj.weight.copy_(attention.q_proj.weight)
        for bias in (attention.q_proj.bias, attention.k_proj.bias):
            nn.init.zeros_(bias)


def train(arguments: argparse.Namespace) -> None:
    """Run the plan, with a progress line and a resumable state file in the output folder."""
    folder: Path = arguments.out
    state_file = folder / "training_state.pt"
    if not (arguments.resume and state_file.exists()):
        write_folder(folder, arguments.seed)
    device = torch.device(arguments.device)
    model = fresh_model(folder, arguments.seed).to(device)
    # Evaluation mode: the data never repeats, so the memory attention's dropout would only slow learning.
    learner = Learner(model).to(device).eval()
    plan = Plan(arguments.steps, arguments.scenes, arguments.sight)
    optimizers = Optimizers(learner, arguments.rate, arguments.matrix_rate)
    average, first = Average(model), 0
    if arguments.resume and state_file.exists():
        saved = torch.load(state_file, weights_only=True, map_location=device)
        learner.load_state_dict(saved["learner"])
        optimizers.restore(saved["optimizers"])
        average.state, first = saved["average"], saved["step"]
    count = sum(p.numel() for p in model.parameters())
    print(f"{count:,} parameters, steps {first} to {plan.steps}", flush=True)
    began, shown, seen = time.monotonic(), time.monotonic(), Meters()
    last = min(plan.steps, arguments.stop_after or plan.steps)
    for step, batch in zip(range(first, last), batches(folder, arguments, plan, first), strict=False):
        torch.manual_seed(arguments.seed * 1_000_003 + step)
        with torch.autocast(device.type, torch.bfloat16, enabled=arguments.bfloat16):
            loss, parts = learner(on_device(batch, device), plan.weights(step))
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        if torch.isfinite(norm):
            optimizers.step(plan.rate(step))
        else:
            optimizers.clear()
        average.update(model, step)
        seen.add({"loss": loss.item(), **parts})
        if (step + 1) % arguments.show == 0:
            pace = (time.monotonic() - shown) / arguments.show
            shown = time.monotonic()
            left = pace * (plan.steps - step - 1)
            print(
                f"step {step + 1}/{plan.steps} {seen.line()} {pace:.2f} s/step, {left / 60:.0f} min left",
                flush=True,
            )
        if (step + 1) % arguments.save == 0 or step + 1 == last:
            save(state_file, folder, learner, optimizers, average, step + 1)
    print(f"done in {(time.monotonic() - began) / 60:.1f} min", flush=True)


class Meters:
    """Averages of named numbers since they were last shown."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, int]] = {}

    def add(self, numbers: dict[str, float]) -> None:
        for name, number in numbers.items():
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = (total + number, count + 1)

    def line(self) -> str:
        text = " ".join(f"{name} {total / count:.3f}" for name, (total, count) in self._sums.items())
        self._sums = {}
        return text


def batches(folder: Path, arguments: argparse.Namespace, plan: Plan, first: int) -> Iterator[Batch]:
    """The batches from step `first` on, drawn ahead in worker processes."""
    steps = Steps(folder, arguments.seed, plan)
    order = range(first, plan.steps)
    # A forked worker can inherit a lock that another thread of this process holds: start it afresh.
    yield from DataLoader(
        steps,
        batch_size=None,
        sampler=order,
        num_workers=arguments.workers,
        worker_init_fn=_one_thread,
        prefetch_factor=4 if arguments.workers else None,
        multiprocessing_context="spawn" if arguments.workers else None,
    )


def _one_thread(_worker: int) -> None:
    import cv2

    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def on_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with every tensor on `device`."""
    moved: dict[str, Any] = {
        name: value.to(device) for name, value in vars(batch).items() if isinstance(value, Tensor)
    }
    return replace(batch, **moved)


def save(
    state_file: Path,
    folder: Path,
    learner: Learner,
    optimizers: Optimizers,
    average: Average,
    step: int,
) -> None:
    """Write what resuming needs, and the averaged weights as a checkpoint; a break in between loses neither."""
    state = {
        "learner": learner.state_dict(),
        "optimizers": optimizers.state(),
        "average": average.state,
        "step": step,
    }
    torch.save(state, state_file.with_suffix(".new"))
    state_file.with_suffix(".new").replace(state_file)
    write_weights(folder, average.state)


def main(words: list[str] | None = None) -> None:
    """The command line; `words` are its arguments, the process's own if None."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the checkpoint and the training state"
    )
    parser.add_argument("--steps", type=int, default=9000)
    parser.add_argument("--scenes", type=int, default=16, help="pictures in a step")
    parser.add_argument(
        "--sight", type=int, default=2000, help="steps at the start for the vision tower alone"
    )
    parser.add_argument("--rate", type=float, default=1e-3, help="highest learning rate of AdamW")
    parser.add_argument("--matrix-rate", type=float, default=0.01, help="highest learning rate of Muon")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--bfloat16", action="store_true", help="compute in bfloat16 where that is safe")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw scenes ahead")
    parser.add_argument("--resume", action="store_true", help="go on from the folder's training state")
    parser.add_argument("--stop-after", type=int, help="end at this step, to be resumed later")
    parser.add_argument("--show", type=int, default=50, help="steps between progress lines")
    parser.add_argument("--save", type=int, default=500, help="steps between saved states")
    train(parser.parse_args(words))


if __name__ == "__main__":
    main()
