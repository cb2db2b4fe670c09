const show = (id, text) => { document.getElementById(id).textContent = text; };

const events = new EventSource("/v1/events?filter=demo.host");
events.onmessage = (event) => show("host", JSON.parse(event.data).payload);

async function processes() {
  try {
    const answer = await fetch("/dev/processes");
    if (answer.ok) show("processes", JSON.stringify(await answer.json()));
  } catch {
    show("processes", "the broker is away");
  }
}

document.getElementById("kill").onclick = () =>
  fetch("/dev/kill", { method: "POST", headers: { "Tidewire-Dev": "1" } }).catch(() => {});
setInterval(processes, 1000);
processes();
