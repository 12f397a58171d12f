// Declares the pack's settings; the server reads them (plugins/comfyui/preferences.py) when it starts.
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
  ],
});
