// Saved workflows with nodes of other Lance packs that are not installed: asks the server to make ours of them before
// they are opened. The table is protocol/other_packs.json.
import { app } from "/scripts/app.js";
import { api } from "/scripts/api.js";

app.registerExtension({
  name: "lanced.otherPacks",
  async beforeConfigureGraph(workflow) {
    if (!(workflow.nodes || []).some((node) => String(node.type).startsWith("Lance"))) return;
    const answer = await api.fetchApi("/lanced/other_packs", { method: "POST", body: JSON.stringify(workflow) });
    if (!answer.ok) return;
    const { nodes, links } = await answer.json();
    workflow.nodes = nodes;
    workflow.links = links;
  },
});
