// Declares the pack's settings; the server reads them (plugins/comfyui/preferences.py).
import { app } from "../../scripts/app.js";

app.registerExtension({
  name: "Sa2VA",
  settings: [
    {
      id: "Sa2VA.OldNames",
      category: ["Sa2VA", "Nodes", "OldNames"],
      name: "Offer the nodes of ComfyUI-Sa2VA-XJ (after a restart)",
      tooltip: "For old workflows: its three nodes, by their names and inputs, on this pack's worker.",
      type: "boolean",
      defaultValue: false,
    },
    {
      id: "Sa2VA.TrustWorkflows",
      category: ["Sa2VA", "Workflows", "TrustWorkflows"],
      name: "Trust workflows (let them run the code of a checkpoint)",
      tooltip: "Whether trust_remote_code and worker_python in Sa2VA Model Options count. A workflow may come from anybody, and what they run may do whatever you may.",
      type: "boolean",
      defaultValue: false,
    },
  ],
});
