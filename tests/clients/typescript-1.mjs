// The 1.x line of the TypeScript SDK, which most hosts still carry; legacy revisions only.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { tell } from "./story.mjs";

await tell(async ({ transport, target }) => {
  const client = new Client({ name: "typescript-1", version: "1" });
  client.onerror = (error) => console.error(error);
  const end = transport === "stdio" ? stdio(target) : new StreamableHTTPClientTransport(new URL(target));
  let revision;
  const keep = end.setProtocolVersion?.bind(end);
  end.setProtocolVersion = (version) => {
    revision = version;
    keep?.(version);
  };
  await client.connect(end);
  return {
    revision,
    tools: async () => (await client.listTools()).tools,
    // listTools() has done so.
    compile: () => {},
    call: (name, args) => client.callTool({ name, arguments: args }),
    read: async (uri) => (await client.readResource({ uri })).contents[0],
    notFound: -32002,
    close: async () => {
      if (end.sessionId) await end.terminateSession();
      client.onerror = undefined;
      await client.close();
    },
  };
});

function stdio(command) {
  return new StdioClientTransport({ command, env: { HOME: process.env.HOME }, stderr: "inherit" });
}
