// Saved workflows with nodes of other Lance packs that are not installed: asks the server to make ours of them before
// they are opened, in ComfyUI's saved form and in the API form. The table is protocol/other_packs.json.
import { app } from "/scripts/app.js";
import { api } from "/scripts/api.js";

async function ofOurs(workflow, theirs) {
  if (!JSON.stringify(workflow).includes(theirs)) return workflow;
  const answer = await api.fetchApi("/lanced/other_packs", { method: "POST", body: JSON.stringify(workflow) });
  return answer.ok ? await answer.json() : workflow;
}

app.registerExtension({
  name: "lanced.otherPacks",
  setup() {
    // There is no hook for the API form.
    const loadApiJson = app.loadApiJson.bind(app);
    app.loadApiJson = async (form, name) => loadApiJson(await ofOurs(form, '"class_type":"Lance'), name);
  },
  async beforeConfigureGraph(workflow) {
    Object.assign(workflow, await ofOurs(workflow, '"type":"Lance'));
  },
});
