// Opens a session, a command and a shell by plain requests, so that the suites find lists that are not empty.
//
//   node furnish.mjs URL        with SSHD in the environment (tests/examples/sshd.rs)
const url = process.argv[2];
const host = JSON.parse(process.env.SSHD);

async function call(name, args) {
  const message = { jsonrpc: "2.0", id: 1, method: "tools/call", params: { name, arguments: args } };
  const headers = { "content-type": "application/json", accept: "application/json, text/event-stream" };
  const response = await fetch(url, { method: "POST", headers, body: JSON.stringify(message) });
  const { result, error } = await response.json();
  if (error || result.isError) throw new Error(JSON.stringify(error ?? result.structuredContent));
  return result.structuredContent;
}

const login = { address: host.address, username: host.user, password: host.password, persistent: true };
const { session_id } = await call("ssh_connect", { ...login, agent_id: "conformance" });
await call("ssh_exec", { session_id, command: "echo hello", wait: true });
await call("ssh_shell_open", { session_id, shell: "/bin/sh" });
