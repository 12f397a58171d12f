// Declares the pack's settings; the server reads them (plugins/comfyui/preferences.py).
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

// Shows the setting of the server's sa2va.toml. It cannot be changed here, since whoever reaches the port could do so.
function trustShown() {
  const shown = document.createElement("span");
  shown.id = "sa2va-trust-workflows";
  api.fetchApi("/sa2va/settings").then(async (answer) => {
    const { trust_workflows, where } = await answer.json();
    shown.textContent = trust_workflows ? `on (${where})` : `off (${where})`;
  });
  return shown;
}

app.registerExtension({
  name: "Sa2VA",
  settings: [
    {
      id: "Sa2VA.OldNames",
      category: ["Sa2VA", "Nodes", "OldNames"],
      name: "Offer the nodes of ComfyUI-Sa2VA-XJ and ComfyUI-Sa2VA (after a restart)",
      tooltip: "For old workflows: their four nodes, by their names, inputs and outputs, on this pack's worker.",
      type: "boolean",
      defaultValue: false,
    },
    {
      id: "Sa2VA.TrustWorkflows",
      category: ["Sa2VA", "Workflows", "TrustWorkflows"],
      name: "Trust workflows (let them run the code of a checkpoint)",
      tooltip: "Whether trust_remote_code and worker_python in Sa2VA Model Options count. Only sa2va.toml (trust_workflows = true) changes it: a workflow may come from anybody, and what it runs may do whatever you may.",
      type: trustShown,
      defaultValue: null,
    },
  ],
});
