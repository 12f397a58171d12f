"""What runs workflows and keeps the outputs of nodes."""


class PromptExecutor:
    def __init__(self) -> None:
        self.outputs = {"1": "an output"}

    def reset(self) -> None:
        self.outputs = {}
