// The document names the default address of a local server; requests made from
// this page go to the server that the page came from.
async function start() {
  const page = document.querySelector("rapi-doc");
  const response = await fetch("openapi.json");
  const openapi = await response.json();
  openapi.servers = [{ url: new URL("v1", location.href).href }];
  await customElements.whenDefined("rapi-doc");
  page.loadSpec(openapi);
}

start();
