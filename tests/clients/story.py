"""What every Python client does with the product, told once; a client is how to say it (see `Client`).

story.mjs is the same for JavaScript.
"""

import json
import logging
import os
import sys
import traceback
import uuid
import warnings
from dataclasses import dataclass
from typing import Any, Awaitable, Callable

# What both lines of the SDK check answers with.
from jsonschema import Draft202012Validator

# The arguments of every client program.
NAME, TRANSPORT, TARGET, MODE, TOOLS = sys.argv[1:]


@dataclass
class Client:
    """A connected client: results and contents as JSON objects, in the names of the wire."""

    revision: str
    tools: Callable[[], Awaitable[list[dict]]]
    call: Callable[[str, dict], Awaitable[dict]]
    read: Callable[[str], Awaitable[dict]]
    # What a failed read raises, with `error.code`.
    error: type[Exception]

    async def ok(self, tool: str, **arguments: Any) -> dict:
        """Calls a tool that must succeed; both channels must name it."""
        result = await self.call(tool, arguments)
        assert not result.get("isError"), result
        assert result["content"][0]["text"].startswith(tool.upper() + ": "), result
        assert result["structuredContent"]["tool"] == tool, result
        return result["structuredContent"]

    async def refused(self, code: str, tool: str, **arguments: Any) -> dict:
        """Calls a tool that must be refused with `code`, in both channels."""
        result = await self.call(tool, arguments)
        assert result["isError"] is True, result
        assert f"REASON: [{code}]" in result["content"][0]["text"], result
        assert result["structuredContent"]["code"] == code, result
        return result["structuredContent"]


class Story:
    """The scenarios, in order; each may use what those before it found out."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.host = json.loads(os.environ["SSHD"])
        self.agent = f"agent-{uuid.uuid4()}"
        self.session = ""

    async def tools_are_listed(self) -> None:
        listed = await self.client.tools()
        with open(TOOLS) as names:
            assert sorted(tool["name"] for tool in listed) == sorted(names.read().split())
        for tool in listed:
            assert tool["inputSchema"]["type"] == tool["outputSchema"]["type"] == "object", tool
            Draft202012Validator.check_schema(tool["inputSchema"])
            Draft202012Validator.check_schema(tool["outputSchema"])
            assert isinstance(tool["annotations"]["readOnlyHint"], bool), tool
            assert tool["title"] and len(tool["description"]) <= 600, tool

    async def a_session_opens(self) -> None:
        host = self.host
        login = {"address": host["address"], "username": host["user"], "password": host["password"]}
        # A run that failed may have left a session.
        answer = await self.client.ok("ssh_connect", **login, agent_id=self.agent, reuse="force_new")
        assert answer["status"] == "ok", answer
        assert answer["host_key"]["fingerprint"] == host["host_key_fingerprint"], answer
        self.session = answer["session_id"]

    async def a_command_runs(self) -> None:
        command = "printf 'out\\n'; printf 'err\\n' >&2; exit 3"
        answer = await self.client.ok("ssh_exec", session_id=self.session, command=command, wait=True)
        assert answer["status"] == "completed", answer
        assert (answer["exit_code"], answer["stdout"], answer["stderr"]) == (3, "out\n", "err\n"), answer

    async def a_background_command_is_read_by_cursor(self) -> None:
        # It goes on when a file is there, so that it runs during the first read and has ended before the second.
        gate = f"gate-{uuid.uuid4()}"
        command = f"echo one; while [ ! -e {gate} ]; do sleep 0.05; done; echo two"
        started = await self.client.ok("ssh_exec", session_id=self.session, command=command)
        assert started["status"] == "started", started
        uri = f"command://{started['command_id']}/output?stream=stdout&cursor="
        first = await self.client.read(f"{uri}0")
        assert first["_meta"]["status"] == "running", first
        await self.client.ok("ssh_exec", session_id=self.session, command=f"touch {gate}", wait=True)
        ended = await self.client.ok("ssh_exec_output", command_id=started["command_id"], wait=True)
        assert (ended["status"], ended["exit_code"], ended["stdout"]) == ("completed", 0, "one\ntwo\n"), ended
        second = await self.client.read(f"{uri}{first['_meta']['cursor']}")
        assert first["text"] + second["text"] == "one\ntwo\n", (first, second)
        meta = second["_meta"]
        assert (meta["status"], meta["exit_code"], meta["cursor"]) == ("completed", 0, 8), meta
        assert (await self.client.read(f"{uri}4"))["text"] == "two\n"

    async def a_shell_answers(self) -> None:
        client = self.client
        opened = await client.ok("ssh_shell_open", session_id=self.session, shell="/bin/sh", env={"PS1": "$ "})
        shell = {"shell_id": opened["shell_id"]}
        await client.ok("ssh_shell_write", **shell, input="echo $((6 * 7)) is the answer\n")
        found = await client.ok("ssh_shell_wait_for", **shell, patterns=["42 is the answer"])
        assert (found["status"], found["matched_pattern"]) == ("matched", "42 is the answer"), found
        assert (await client.ok("ssh_shell_close", **shell))["status"] == "ok"

    async def errors_say_what_is_wrong(self) -> None:
        wrong = {"session_id": self.session, "command": "true", "timeout_secs": "soon"}
        assert "timeout_secs" in (await self.client.refused("INVALID_ARGUMENT", "ssh_exec", **wrong))["reason"]
        wrong = {"session_id": str(uuid.uuid4()), "command": "true"}
        unknown = await self.client.refused("SESSION_NOT_FOUND", "ssh_exec", **wrong)
        assert self.session in unknown["detail"], unknown
        try:
            await self.client.read(f"command://{uuid.uuid4()}/output")
        except self.client.error as error:
            assert error.error.code == (-32002 if MODE == "legacy" else -32602), error.error
        else:
            raise AssertionError("an unknown command was read")

    async def a_session_tells_its_health(self) -> None:
        health = json.loads((await self.client.read(f"session://{self.session}/health"))["text"])
        assert (health["session_id"], health["username"]) == (self.session, self.host["user"]), health
        assert health["healthy"] is True, health
        assert f"{health['host']}:{health['port']}" == self.host["address"], health

    async def nothing_is_left(self) -> None:
        closed = await self.client.ok("ssh_disconnect", session_id=self.session)
        assert (closed["status"], closed["session_id"]) == ("ok", self.session), closed
        assert (await self.client.ok("ssh_sessions", agent_id=self.agent))["count"] == 0


SCENARIOS = [name for name in vars(Story) if not name.startswith("_")]


def say(word: str, scenario: str) -> None:
    print(f"{word:6} {NAME} {TRANSPORT} {MODE}: {scenario.replace('_', ' ')}", flush=True)


async def tell(connect: Callable[[], Any]) -> None:
    """Connects by `connect`, a context of a `Client`, and tells the story, one line per scenario."""
    complaints = Complaints()
    scenario = "handshake"
    try:
        async with connect() as client:
            assert client.revision == ("2025-11-25" if MODE == "legacy" else "2026-07-28"), client.revision
            say("ok", scenario)
            story = Story(client)
            for scenario in SCENARIOS:
                await getattr(story, scenario)()
                say("ok", scenario)
        scenario = "nothing to complain about"
        assert not complaints.heard, complaints.heard
        say("ok", scenario)
    except BaseException:
        say("FAILED", scenario)
        traceback.print_exc(file=sys.stdout)
        print(complaints.heard, flush=True)
        sys.exit(1)


class Complaints(logging.Handler):
    """What the client library warns of, as log records or Python warnings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.heard: list[str] = []
        logging.getLogger().addHandler(self)
        logging.captureWarnings(True)
        # The libraries' own deprecations of themselves are no words about the server.
        warnings.simplefilter("ignore", DeprecationWarning)

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.append(f"{record.name}: {record.getMessage()}")
