"""The configuration of a checkpoint that no family of ours knows: its language model is a Mistral."""

from transformers import MistralConfig, PretrainedConfig


class BroughtConfig(PretrainedConfig):
    model_type = "sa2va_chat"

    def __init__(self, llm_config=None, sequence_bias=None, **more):
        super().__init__(**more)
        self.llm_config = MistralConfig(**(llm_config or {}))
        self.sequence_bias = sequence_bias

    def to_dict(self):
        return {**super().to_dict(), "llm_config": self.llm_config.to_dict()}
