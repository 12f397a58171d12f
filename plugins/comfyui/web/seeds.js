// A seed stays as it is after each run unless the user says otherwise. Newer versions of ComfyUI are told so by the
// node (plugins/comfyui/inputs.py, `fixed_seed`); older ones begin with "randomize". A saved workflow's choice comes later
// and counts.
import { app } from "../../scripts/app.js";

app.registerExtension({
  name: "Sa2VA.Seeds",
  nodeCreated(node) {
    if (!node.comfyClass?.startsWith("Sa2VA")) return;
    for (const widget of node.widgets ?? []) {
      if (widget.name === "control_after_generate") widget.value = "fixed";
    }
  },
});
