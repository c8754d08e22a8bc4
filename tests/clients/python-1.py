"""The 1.x line of the Python SDK, which most hosts still carry; legacy revisions only."""

import os
from contextlib import asynccontextmanager

import anyio
from mcp import ClientSession, McpError, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

import story


@asynccontextmanager
async def connect():
    if story.TRANSPORT == "stdio":
        streams = stdio_client(StdioServerParameters(command=story.TARGET, env={"HOME": os.environ["HOME"]}))
    else:
        streams = streamable_http_client(story.TARGET)
    async with streams as (incoming, outgoing, *_), ClientSession(incoming, outgoing) as session:
        hello = await session.initialize()

        async def tools():
            return [wire(tool) for tool in (await session.list_tools()).tools]

        async def call(name, arguments):
            return wire(await session.call_tool(name, arguments))

        async def read(uri):
            return wire((await session.read_resource(uri)).contents[0])

        yield story.Client(hello.protocolVersion, tools, call, read, McpError)


def wire(model):
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


anyio.run(story.tell, connect)
