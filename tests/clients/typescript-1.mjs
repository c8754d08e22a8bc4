// The 1.x line of the TypeScript SDK, which most hosts still carry; legacy revisions only.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import {
  ElicitRequestSchema,
  ResourceListChangedNotificationSchema,
  ResourceUpdatedNotificationSchema,
} from "@modelcontextprotocol/sdk/types.js";
import { output, takesBytes, tell } from "./story.mjs";

await tell(async ({ transport, target, bells, pieces, user }) => {
  const capabilities = { elicitation: {}, ...(pieces ? takesBytes : {}) };
  const client = new Client({ name: "typescript-1", version: "1" }, { capabilities });
  client.fallbackNotificationHandler = async ({ method, params }) => method === output && pieces?.push(params);
  client.onerror = (error) => console.error(error);
  client.setNotificationHandler(ResourceUpdatedNotificationSchema, ({ params }) => bells.ring(params.uri));
  client.setNotificationHandler(ResourceListChangedNotificationSchema, () => bells.ring(undefined));
  client.setRequestHandler(ElicitRequestSchema, async ({ params }) => user.decide(params.message));
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
    listed: async () => (await client.listResources()).resources.map(({ uri }) => uri),
    prompts: async () => (await client.listPrompts()).prompts,
    prompt: (name, args) => client.getPrompt({ name, arguments: args }),
    complete: async (name, argument, value) =>
      (await client.complete({ ref: { type: "ref/prompt", name }, argument: { name: argument, value } })).completion,
    subscribe: async (uri) => {
      if (uri) await client.subscribeResource({ uri });
      return async () => {
        if (uri) await client.unsubscribeResource({ uri });
      };
    },
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
