"""A tracker with the names of upstream's, its habits (`cuda`, everything kept), and little of its arithmetic."""

import torch
from torch import nn

WIDTH = 16
SIDE = 128
NO_OBJECT = -1024.0


class Predictor(nn.Module):
    image_size = SIDE

    def __init__(self):
        super().__init__()
        self.encoder = nn.Conv2d(3, WIDTH, kernel_size=4, stride=4)
        self.encoder_calls = 0

    def forward_image(self, pixels):
        self.encoder_calls += 1
        return {"backbone_fpn": [self.encoder(pixels)], "vision_pos_enc": []}

    def init_state(self, images):
        return {
            "images": images,
            "num_frames": len(images),
            "video_height": SIDE,
            "video_width": SIDE,
            "device": torch.device("cuda"),
            "storage_device": torch.device("cuda"),
            "cached_features": {},
            "objects": [],
            "output_dict": {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}},
            "output_dict_per_obj": {},
        }

    def _features(self, state, frame):
        pixels, found = state["cached_features"].get(frame, (None, None))
        if found is None:
            pixels = state["images"][frame].cuda().unsqueeze(0)
            found = self.forward_image(pixels)
            state["cached_features"] = {frame: (pixels, found)}
        return found["backbone_fpn"][0]

    def add_language_embd(self, state, frame_idx, obj_id, language_embd, inference=False):
        if obj_id not in state["objects"]:
            state["objects"].append(obj_id)
            state["output_dict_per_obj"][len(state["objects"]) - 1] = {"non_cond_frame_outputs": {}}
        number = state["objects"].index(obj_id)
        logits = torch.einsum("bchw,boc->bohw", self._features(state, frame_idx), language_embd.cuda())
        kept = state["output_dict"]["cond_frame_outputs"].setdefault(frame_idx, {})
        kept[number] = logits.to(state["storage_device"])
        return frame_idx, state["objects"], logits

    def _remember(self, state, frame, masks):
        """`[objects, C]`: what the features are where the masks are."""
        features = self._features(state, frame)
        inside = masks.sigmoid()
        return (features * inside).mean(dim=(2, 3))

    @torch.inference_mode()
    def propagate_in_video(self, state):
        kept = state["output_dict"]
        conditioning = {
            frame: torch.cat([masks[number] for number in sorted(masks)])
            for frame, masks in kept["cond_frame_outputs"].items()
        }
        memory = [self._remember(state, frame, masks) for frame, masks in conditioning.items()]
        for frame in range(state["num_frames"]):
            if frame in conditioning:
                masks = conditioning[frame]
            else:
                recent = [kept["non_cond_frame_outputs"].get(frame - back) for back in range(1, 4)]
                seen = torch.stack(memory + [each for each in recent if each is not None]).mean(dim=0).cuda()
                masks = (self._features(state, frame) * seen[:, :, None, None]).sum(dim=1, keepdim=True)
                kept["non_cond_frame_outputs"][frame] = self._remember(state, frame, masks)
                for number, outputs in state["output_dict_per_obj"].items():
                    outputs["non_cond_frame_outputs"][frame] = masks[number]
            size = (state["video_height"], state["video_width"])
            if masks.shape[-2:] != size:
                masks = nn.functional.interpolate(masks, size=size, mode="bilinear", align_corners=False)
            yield frame, state["objects"], masks


class SAM2(nn.Module):
    hidden_dim = WIDTH

    def __init__(self):
        super().__init__()
        self.sam2_model = Predictor()

    def preprocess_image(self, image, dtype=torch.bfloat16):
        return image / 255.0 - torch.tensor(0.485, dtype=dtype, device=image.device)

    def get_sam2_embeddings(self, images):
        return self.sam2_model.init_state(images)

    def language_embd_inference(self, state, language_embd):
        for frame, objects in enumerate(language_embd):
            for number, vector in enumerate(objects):
                self.sam2_model.add_language_embd(
                    state, frame, number + 100, vector[None][None], inference=True
                )
        return torch.cat([masks for _, _, masks in self.sam2_model.propagate_in_video(state)])
