// The current TypeScript SDK.
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";
import { AjvJsonSchemaValidator } from "@modelcontextprotocol/client/validators/ajv";
import { tell } from "./story.mjs";

await tell(async ({ transport, target, mode }) => {
  const negotiation = mode === "legacy" || mode === "auto" ? mode : { pin: mode };
  const client = new Client({ name: "typescript", version: "1" }, { versionNegotiation: { mode: negotiation } });
  client.onerror = (error) => console.error(error);
  const end = transport === "stdio" ? stdio(target) : new StreamableHTTPClientTransport(new URL(target));
  await client.connect(end);
  return {
    revision: client.getNegotiatedProtocolVersion(),
    tools: async () => (await client.listTools()).tools,
    // The client itself does so at the first call of a tool.
    compile: (schema) => new AjvJsonSchemaValidator().getValidator(schema),
    call: (name, args) => client.callTool({ name, arguments: args }),
    read: async (uri) => (await client.readResource({ uri })).contents[0],
    // It calls -32002, the code of the legacy revisions, by the modern one.
    notFound: -32602,
    close: async () => {
      // close() alone leaves a session of the HTTP transport to the server.
      if (end.sessionId) await end.terminateSession();
      client.onerror = undefined;
      await client.close();
    },
  };
});

function stdio(command) {
  return new StdioClientTransport({ command, env: { HOME: process.env.HOME }, stderr: "inherit" });
}
