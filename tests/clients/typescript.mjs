// The current TypeScript SDK.
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";
import { AjvJsonSchemaValidator } from "@modelcontextprotocol/client/validators/ajv";
import { output, takesBytes, tell } from "./story.mjs";

await tell(async ({ transport, target, mode, bells, pieces, user }) => {
  const negotiation = mode === "legacy" || mode === "auto" ? mode : { pin: mode };
  let closing = false;
  const capabilities = { elicitation: { form: {} }, ...(pieces ? takesBytes : {}) };
  const options = { versionNegotiation: { mode: negotiation }, capabilities };
  const client = new Client({ name: "typescript", version: "1" }, options);
  client.fallbackNotificationHandler = async ({ method, params }) => method === output && pieces?.push(params);
  client.onerror = (error) => {
    // Closing a listen ends its stream, and then posts a notifications/cancelled without the header Mcp-Method, which
    // this revision wants on every POST: the stream has ended all the same.
    if (closing && error.message.includes("missing required Mcp-Method header")) return;
    console.error(error);
  };
  client.setNotificationHandler("notifications/resources/updated", ({ params }) => bells.ring(params.uri));
  client.setNotificationHandler("notifications/resources/list_changed", () => bells.ring(undefined));
  client.setRequestHandler("elicitation/create", async ({ params }) => user.decide(params.message));
  const end = transport === "stdio" ? stdio(target) : new StreamableHTTPClientTransport(new URL(target));
  await client.connect(end);
  return {
    revision: client.getNegotiatedProtocolVersion(),
    tools: async () => (await client.listTools()).tools,
    // The client itself does so at the first call of a tool.
    compile: (schema) => new AjvJsonSchemaValidator().getValidator(schema),
    call: (name, args) => client.callTool({ name, arguments: args }),
    read: async (uri) => (await client.readResource({ uri })).contents[0],
    listed: async () => (await client.listResources()).resources.map(({ uri }) => uri),
    prompts: async () => (await client.listPrompts()).prompts,
    prompt: (name, args) => client.getPrompt({ name, arguments: args }),
    complete: async (name, argument, value) =>
      (await client.complete({ ref: { type: "ref/prompt", name }, argument: { name: argument, value } })).completion,
    // What a listen asked for comes to the same handlers as what a session is told.
    subscribe: async (uri) => {
      if (mode !== "legacy") {
        const heard = await client.listen(uri ? { resourceSubscriptions: [uri] } : { resourcesListChanged: true });
        return () => {
          closing = transport === "http";
          return heard.close();
        };
      }
      if (uri) await client.subscribeResource({ uri });
      return async () => {
        if (uri) await client.unsubscribeResource({ uri });
      };
    },
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
