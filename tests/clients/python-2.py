"""The current Python SDK."""

import os
import warnings
from contextlib import asynccontextmanager

import anyio
import mcp
import mcp_types as types
from mcp.client.stdio import StdioServerParameters

import story

# Of resources/subscribe, by what this client does in the revision that has it.
warnings.simplefilter("ignore", mcp.MCPDeprecationWarning)

# In the revisions with sessions an answer over HTTP is one event of a stream, and those end here at 1 MiB; a read of the
# server's own largest size, 1 MiB of bytes in base64, would break the stream.
LARGEST = 512 * 1024 if story.TRANSPORT == "http" and story.MODE == "legacy" else None


@asynccontextmanager
async def connect(target):
    bells = story.Bells()

    # What a listen asked for comes here too, and is not listened for here.
    async def hear(message):
        match message:
            case types.ResourceUpdatedNotification(params=params):
                bells.ring(params.uri)
            case types.ResourceListChangedNotification():
                bells.ring(None)

    user = story.User()

    async def ask(context, params):
        return types.ElicitResult(**user.decide(params.message))

    if story.TRANSPORT == "stdio":
        target = StdioServerParameters(command=target, env={"HOME": os.environ["HOME"]})
    async with mcp.Client(target, mode=story.MODE, message_handler=hear, elicitation_callback=ask) as client:

        async def tools():
            return [wire(tool) for tool in (await client.list_tools()).tools]

        async def call(name, arguments):
            return wire(await client.call_tool(name, arguments))

        async def read(uri):
            return wire((await client.read_resource(uri)).contents[0])

        async def listed():
            return [resource.uri for resource in (await client.list_resources()).resources]

        async def prompts():
            return [wire(prompt) for prompt in (await client.list_prompts()).prompts]

        async def prompt(name, arguments):
            return wire(await client.get_prompt(name, arguments))

        async def complete(name, argument, value):
            reference = types.PromptReference(name=name)
            return wire((await client.complete(reference, {"name": argument, "value": value})).completion)

        @asynccontextmanager
        async def subscription(uri):
            if story.MODE == "legacy":
                if uri:
                    await client.subscribe_resource(uri)
                yield bells.hear(uri)
                if uri:
                    await client.unsubscribe_resource(uri)
                return
            wanted = {"resource_subscriptions": [uri]} if uri else {"resources_list_changed": True}
            async with client.listen(**wanted) as events:
                # The iterator has no second event that is equal to one that waits.
                async def changed():
                    await anext(events)
                    return 1

                yield changed

        yield story.Client(
            client.protocol_version, tools, call, read, listed, prompts, prompt, complete, subscription, bells,
            user, mcp.MCPError, LARGEST,
        )


def wire(model):
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


anyio.run(story.tell, connect)
