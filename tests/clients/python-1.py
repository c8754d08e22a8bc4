"""The 1.x line of the Python SDK, which most hosts still carry; legacy revisions only."""

import os
from contextlib import asynccontextmanager

import anyio
from mcp import ClientSession, McpError, StdioServerParameters, stdio_client, types
from mcp.client.streamable_http import streamable_http_client
from pydantic import AnyUrl

import story


@asynccontextmanager
async def connect(target):
    try:
        async with connected(target) as client:
            yield client
    except* anyio.BrokenResourceError:
        # Over stdio this line of the SDK breaks if it is told something while it closes: that the list has changed with
        # the end of the last session.
        pass


@asynccontextmanager
async def connected(target):
    bells = story.Bells()

    async def hear(message):
        match getattr(message, "root", None):
            case types.ResourceUpdatedNotification(params=params):
                bells.ring(str(params.uri))
            case types.ResourceListChangedNotification():
                bells.ring(None)

    user = story.User()

    async def ask(context, params):
        return types.ElicitResult(**user.decide(params.message))

    if story.TRANSPORT == "stdio":
        streams = stdio_client(StdioServerParameters(command=target, env={"HOME": os.environ["HOME"]}))
    else:
        streams = streamable_http_client(target)
    async with (
        streams as (incoming, outgoing, *_),
        ClientSession(incoming, outgoing, message_handler=hear, elicitation_callback=ask) as session,
    ):
        hello = await session.initialize()

        async def tools():
            return [wire(tool) for tool in (await session.list_tools()).tools]

        async def call(name, arguments):
            return wire(await session.call_tool(name, arguments))

        async def read(uri):
            return wire((await session.read_resource(uri)).contents[0])

        async def listed():
            return [str(resource.uri) for resource in (await session.list_resources()).resources]

        async def prompts():
            return [wire(prompt) for prompt in (await session.list_prompts()).prompts]

        async def prompt(name, arguments):
            return wire(await session.get_prompt(name, arguments))

        async def complete(name, argument, value):
            reference = types.PromptReference(type="ref/prompt", name=name)
            return wire((await session.complete(reference, {"name": argument, "value": value})).completion)

        @asynccontextmanager
        async def subscription(uri):
            if uri:
                await session.subscribe_resource(AnyUrl(uri))
            yield bells.hear(uri)
            if uri:
                await session.unsubscribe_resource(AnyUrl(uri))

        yield story.Client(
            hello.protocolVersion, tools, call, read, listed, prompts, prompt, complete, subscription, bells, user,
            McpError,
        )


def wire(model):
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


anyio.run(story.tell, connect)
