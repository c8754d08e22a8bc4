"""The current Python SDK."""

import os
from contextlib import asynccontextmanager

import anyio
import mcp
from mcp.client.stdio import StdioServerParameters

import story


@asynccontextmanager
async def connect():
    target = story.TARGET
    if story.TRANSPORT == "stdio":
        target = StdioServerParameters(command=target, env={"HOME": os.environ["HOME"]})
    async with mcp.Client(target, mode=story.MODE) as client:

        async def tools():
            return [wire(tool) for tool in (await client.list_tools()).tools]

        async def call(name, arguments):
            return wire(await client.call_tool(name, arguments))

        async def read(uri):
            return wire((await client.read_resource(uri)).contents[0])

        yield story.Client(client.protocol_version, tools, call, read, mcp.MCPError)


def wire(model):
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


anyio.run(story.tell, connect)
