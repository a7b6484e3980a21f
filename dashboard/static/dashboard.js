"use strict";
// Everything that comes from the cluster is shown with textContent: a log line cannot become markup.

const byId = (id) => document.getElementById(id);

function cell(row, text, kind) {
  const td = row.insertCell();
  td.textContent = text ?? "";
  if (kind) td.className = kind;
}

function size(bytes) {
  if (bytes === undefined || bytes === null) return "";
  const units = ["B", "KB", "MB", "GB", "TB"];
  let unit = 0;
  while (bytes >= 1000 && unit < units.length - 1) { bytes /= 1000; unit += 1; }
  return `${bytes.toFixed(unit ? 1 : 0)} ${units[unit]}`;
}

async function getJson(path) {
  const answer = await fetch(path, { headers: { Accept: "application/json" } });
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error ? body.error.message : `status ${answer.status}`);
  return body;
}

async function showCluster() {
  try {
    const cluster = await getJson("/cluster");
    const { n, w, r } = cluster.quorum;
    byId("summary").textContent =
      `${cluster.cluster_id} · N=${n} W=${w} R=${r} · ${cluster.shard_count} shards` +
      ` · Raft leader ${cluster.raft_leader ?? "none"} · ring epoch ${cluster.ring_epoch}`;
    const nodes = byId("nodes");
    nodes.replaceChildren();
    for (const node of cluster.nodes) {
      const row = nodes.insertRow();
      const answers = node.status !== null;
      const store = (node.status && node.status.storage) || {};
      cell(row, node.id);
      cell(row, answers ? "alive" : "no answer", answers ? "alive" : "dead");
      cell(row, node.roles.join(" "));
      cell(row, node.leads);
      cell(row, node.owns);
      cell(row, store.rows === undefined ? "" : store.rows.toLocaleString());
      cell(row, size(store.bytes));
      cell(row, size(store.disk_free_bytes) + (store.read_only ? " (read-only)" : ""));
    }
  } catch (error) {
    byId("summary").textContent = `this node does not answer: ${error.message}`;
  }
}

function parameters() {
  const form = new FormData(byId("search"));
  const chosen = new URLSearchParams();
  if (form.get("q")) chosen.set("q", form.get("q"));
  if (form.get("since")) chosen.set("from", form.get("since"));
  return chosen;
}

async function showRows() {
  const outcome = byId("outcome");
  try {
    const chosen = parameters();
    chosen.set("limit", "100");
    const answer = await getJson(`/query?${chosen}`);
    const rows = byId("rows");
    rows.replaceChildren();
    for (const found of answer.rows) {
      const row = rows.insertRow();
      cell(row, found.timestamp);
      cell(row, found.level, /^[a-z]+$/.test(found.level ?? "") ? found.level : "");
      cell(row, found.service);
      cell(row, found.message);
    }
    const kind = answer.complete ? "complete" : `NOT complete: ${answer.missing.length} shards are missing`;
    outcome.textContent = `${answer.rows.length} rows, ${answer.stats.elapsed_ms} ms, ${kind}`;
    outcome.className = answer.complete ? "" : "warn";
  } catch (error) {
    outcome.textContent = error.message;
    outcome.className = "error";
  }
}

async function showHistogram() {
  const chart = byId("histogram");
  try {
    const { rows } = await getJson(`/query/histogram?${parameters()}`);
    const counts = rows.slice(-240);
    const most = Math.max(1, ...counts.map((row) => row.count));
    chart.replaceChildren(...counts.map((row) => {
      const bar = document.createElement("i");
      bar.style.height = `${Math.round((100 * row.count) / most)}%`;
      bar.title = `${row.timestamp}: ${row.count}`;
      return bar;
    }));
  } catch (error) {
    chart.replaceChildren();
  }
}

byId("search").addEventListener("submit", (event) => {
  event.preventDefault();
  showRows();
  showHistogram();
});
showCluster();
showRows();
showHistogram();
setInterval(showCluster, 2000);
