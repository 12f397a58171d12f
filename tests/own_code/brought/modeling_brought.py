"""A model shaped like upstream's: one method that does it all and returns masks of true and false."""

from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import MistralForCausalLM
from transformers.modeling_utils import PreTrainedModel

from .configuration_brought import BroughtConfig
from .sam2 import SAM2, SIDE


class BroughtModel(PreTrainedModel):
    config_class = BroughtConfig
    base_model_prefix = "language_model"
    main_input_name = "pixel_values"

    def __init__(self, config):
        super().__init__(config)
        self.language_model: Any = MistralForCausalLM(config.llm_config)
        self.language_model.generation_config.sequence_bias = config.sequence_bias
        self.grounding_encoder = SAM2()
        width = config.llm_config.hidden_size
        self.text_hidden_fcs = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(inplace=True), nn.Linear(width, SAM2.hidden_dim)
        )
        self.see = nn.Linear(3, width)
        self.torch_dtype = torch.bfloat16
        self.post_init()

    def generate(self, pixels, ids, **settings):
        embedded = self.language_model.get_input_embeddings()(ids)
        if pixels is not None:
            embedded = torch.cat([self.see(pixels.cuda().mean(dim=(2, 3)))[None], embedded], dim=1)
        mask = torch.ones(embedded.shape[:2], dtype=torch.bool, device=embedded.device)
        return self.language_model.generate(inputs_embeds=embedded, attention_mask=mask, **settings)

    def predict_forward(self, image=None, video=None, text=None, past_text="", tokenizer=None):
        assert image is None or "<image>" in text
        shown = video or ([] if image is None else [image])
        small = [torch.from_numpy(np.array(each.resize((SIDE, SIDE)))).permute(2, 0, 1) for each in shown]
        pixels = [self.grounding_encoder.preprocess_image(each).to(self.torch_dtype) for each in small]
        ids = torch.tensor(tokenizer.encode(past_text + text.replace("<image>", ""))).cuda().unsqueeze(0)
        said = self.generate(
            torch.stack(pixels[:5]) if pixels else None,
            ids,
            max_new_tokens=64,
            do_sample=False,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            output_hidden_states=True,
            return_dict_in_generate=True,
        )
        tokens = said.sequences[0]
        answer = {"prediction": tokenizer.decode(tokens).strip(), "prediction_masks": []}
        if not shown:
            return answer
        states = torch.cat([step[-1][0] for step in said.hidden_states])[-len(tokens) + 1 :]
        chosen = states[tokens[:-1] == tokenizer.convert_tokens_to_ids("[SEG]")]
        for vector in self.text_hidden_fcs(chosen):
            state = self.grounding_encoder.get_sam2_embeddings(torch.stack(pixels))
            prompts = [vector.unsqueeze(0)] * min(5, len(shown))
            masks = self.grounding_encoder.language_embd_inference(state, prompts)
            width, height = shown[0].size
            masks = nn.functional.interpolate(
                masks, size=(height, width), mode="bilinear", align_corners=False
            )
            answer["prediction_masks"].append((masks[:, 0].sigmoid() > 0.5).cpu().numpy())
        return answer
