// Saved workflows with nodes of other Lance packs that are not installed: asks the server to make ours of them before
// they are opened. The table is protocol/other_packs.json.
import { app } from "/scripts/app.js";
import { api } from "/scripts/api.js";

app.registerExtension({
  name: "lanced.otherPacks",
  async beforeConfigureGraph(workflow) {
    if (!JSON.stringify([workflow.nodes, workflow.definitions]).includes('"type":"Lance')) return;
    const answer = await api.fetchApi("/lanced/other_packs", { method: "POST", body: JSON.stringify(workflow) });
    if (answer.ok) Object.assign(workflow, await answer.json());
  },
});
