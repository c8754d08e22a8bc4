"""What every Python client does with the product, told once; a client is how to say it (see `Client`).

story.mjs is the same for JavaScript.
"""

import base64
import hashlib
import json
import logging
import os
import sys
import time
import traceback
import uuid
import warnings
from collections import defaultdict
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, AsyncIterator, Awaitable, Callable

import anyio

# What both lines of the SDK check answers with.
from jsonschema import Draft202012Validator

# The arguments of every client program. The second target keeps 64 MiB of what a command writes, the first 10.
NAME, TRANSPORT, TARGET, ROOMY, MODE, TOOLS = sys.argv[1:]

# Whether a connection outlives a request; what the revision of 2026 does over HTTP has none.
CONNECTED = TRANSPORT == "stdio" or MODE == "legacy"

# How much a command writes at 5 MB/s, and how much one writes as fast as it can: more than a history of 10 MiB.
PACED = int(os.environ["PUSH_MB"]) * 1_000_000
UNPACED = max(PACED, 15_000_000)

# Waits until there is news, and says how many notifications told of it.
Changed = Callable[[], Awaitable[int]]


class Bells:
    """What a connection has been notified of: one bell for each URI, and one, `None`, for the list of resources."""

    def __init__(self) -> None:
        self._rung: dict[str | None, int] = defaultdict(int)
        self._event = anyio.Event()

    def ring(self, uri: str | None) -> None:
        self._rung[uri] += 1
        self._event.set()
        self._event = anyio.Event()

    def hear(self, uri: str | None) -> Changed:
        async def changed() -> int:
            while not self._rung[uri]:
                await self._event.wait()
            return self._rung.pop(uri)

        return changed


class User:
    """Who sits at a client and is asked about host keys."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.trusts = False

    def decide(self, message: str) -> dict:
        """What is said to a question, as the fields of an elicitation's result."""
        self.asked.append(message)
        return {"action": "accept", "content": {"trust": True}} if self.trusts else {"action": "decline"}


@dataclass
class Client:
    """A connected client: results and contents as JSON objects, in the names of the wire."""

    revision: str
    tools: Callable[[], Awaitable[list[dict]]]
    call: Callable[[str, dict], Awaitable[dict]]
    read: Callable[[str], Awaitable[dict]]
    # The URIs of all resources.
    listed: Callable[[], Awaitable[list[str]]]
    prompts: Callable[[], Awaitable[list[dict]]]
    prompt: Callable[[str, dict], Awaitable[dict]]
    # The values for an argument of a prompt, of which so much is typed.
    complete: Callable[[str, str, str], Awaitable[dict]]
    # A subscription to a URI in the way of the revision, or, for `None`, to the list of resources.
    subscription: Callable[[str | None], AbstractAsyncContextManager[Changed]]
    # Notifications of the connection itself.
    bells: Bells
    user: User
    # What a failed read raises, with `error.code`.
    error: type[Exception]
    # Bytes that a read may ask for, where the client takes no more.
    largest: int | None = None

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


@dataclass
class Reader:
    """Reads a command to its end, whenever it is told to, and keeps count of the bytes."""

    client: Client
    uri: str
    changed: Changed
    # Of the connection, or of a lane; without either the reader keeps the place itself.
    cursor: str = "cursor=auto" if CONNECTED else ""
    digest: Any = field(default_factory=hashlib.sha256)
    size: int = 0
    gaps: list[int] = field(default_factory=list)
    meta: dict = field(default_factory=dict)

    async def news(self) -> None:
        """Waits to be notified and reads what there is."""
        with anyio.fail_after(30):
            await self.changed()
        await self.read()

    async def read(self) -> None:
        """Reads what there is."""
        more = True
        while more:
            query = self.cursor or f"cursor={self.meta.get('cursor', 0)}"
            if self.client.largest:
                query += f"&max_bytes={self.client.largest}"
            contents = await self.client.read(f"{self.uri}?{query}&stream=merged&encoding=base64")
            piece = base64.b64decode(contents["blob"], validate=True)
            self.meta = contents["_meta"]
            self.digest.update(piece)
            self.size += len(piece)
            if gap := self.meta.get("truncated_since_last_read"):
                self.gaps.append(gap)
                # What comes behind it is looked at alone.
                self.digest = hashlib.sha256(piece)
            more = self.meta.get("more", False)

    async def to_the_end(self) -> None:
        """Reads on until the command has ended and nothing is left."""
        while self.meta.get("status", "running") == "running":
            await self.news()
        assert (self.meta["status"], self.meta["exit_code"]) == ("completed", 0), self.meta

    def has_read(self, size: int, digest: str) -> None:
        """All of it, and nothing else."""
        assert (self.size, self.gaps) == (size, []), (self.uri, self.cursor, self.size, self.gaps)
        assert self.digest.hexdigest() == digest, (self.uri, self.cursor)


class Gates:
    """Files that a command waits for."""

    def __init__(self, client: Client, session: str) -> None:
        self._client, self._session, self._name = client, session, f"gate-{uuid.uuid4()}"

    def wait(self, which: object) -> str:
        """Shell words that wait for one."""
        return f"while [ ! -e {self._name}-{which} ]; do sleep 0.05; done"

    async def open(self, which: object) -> None:
        command = f"touch {self._name}-{which}"
        answer = await self._client.ok("ssh_exec", session_id=self._session, command=command, wait=True)
        assert answer["exit_code"] == 0, answer


@dataclass
class SteeredLane:
    """A lane that only announces, and is read through."""

    client: Client
    uri: str
    sub_id: str
    changed: Changed
    meta: dict = field(default_factory=dict)

    @classmethod
    async def open(cls, client: Client, uri: str, **options: Any) -> "SteeredLane":
        # Its notifications carry the URI as it is spelled here.
        spelled = f"{uri}?lane={uuid.uuid4()}"
        opened = await client.ok("sub_open", uri=spelled, grace_ms=60_000, **options)
        return cls(client, uri, opened["sub_id"], client.bells.hear(spelled))

    async def reads(self, expected: str) -> None:
        """Reads, whenever there is news, until it has read just this."""
        text = ""
        while text != expected:
            text += await self._news()
            assert expected.startswith(text), (expected, text)

    async def to_the_end(self) -> None:
        """Waits to be told of the end."""
        while self.meta["status"] == "running":
            assert await self._news() == "", self

    async def _news(self) -> str:
        with anyio.fail_after(30):
            await self.changed()
        read = await self.client.read(f"{self.uri}?sub_id={self.sub_id}&stream=merged")
        self.meta = read["_meta"]
        return read["text"]

    async def sent(self) -> int:
        return (await self.steer("sub_stats"))["events_sent"]

    async def steer(self, tool: str, **arguments: Any) -> dict:
        return await self.client.ok(tool, sub_id=self.sub_id, **arguments)


class Story:
    """The scenarios, in order; each may use what those before it found out."""

    def __init__(self, client: Client, connect: Callable[[str], Any]) -> None:
        self.client = client
        self.connect = connect
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

    async def an_unknown_host_key_is_put_to_the_user(self) -> None:
        host, user = self.host, self.client.user
        known = os.path.join(os.environ["HOME"], f"known-{uuid.uuid4()}")
        login = {"target": f"{host['user']}@{host['address']}", "password": host["password"], "ssh_config_file": "none"}
        asking = login | {"known_hosts_file": known, "strict_host_key_checking": "ask", "reuse": "force_new"}
        refused = await self.client.refused("HOST_KEY_UNKNOWN", "ssh_connect", **asking)
        assert "does not trust" in refused["detail"], refused
        assert not os.path.exists(known) and host["host_key_fingerprint"] in user.asked[0], user.asked
        user.trusts = True
        opened = await self.client.ok("ssh_connect", **asking)
        assert (opened["host_key"]["status"], len(user.asked)) == ("learnt", 2), (opened, user.asked)
        await self.client.ok("ssh_disconnect", session_id=opened["session_id"])

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

    async def a_running_command_is_followed(self) -> None:
        name, digest = await self._file(self.client, self.session, PACED)
        uri = await self._start(self.client, self.session, paced(name))
        async with self.client.subscription(uri) as changed:
            reader = Reader(self.client, uri, changed)
            await reader.to_the_end()
        reader.has_read(PACED, digest)

    async def subscribers_do_not_disturb_each_other(self) -> None:
        async with self._roomy() as (client, session):
            name, digest = await self._file(client, session, PACED)
            uri = await self._start(client, session, paced(name))
            readers: list[Reader] = []

            async def lane(policy: str, pauses: bool = False) -> None:
                # Its notifications carry the URI as it is spelled here.
                spelled = f"{uri}?reader={policy}"
                # A reader that is late at the end still finds the lane.
                opened = await client.ok("sub_open", uri=spelled, lag_policy=policy, grace_ms=60_000)
                sub_id = opened["sub_id"]
                readers.append(reader := Reader(client, uri, client.bells.hear(spelled), f"sub_id={sub_id}"))
                if pauses:
                    await reader.news()
                    await self._pause(client, sub_id)
                    # The end may have been told before.
                    await reader.read()
                await reader.to_the_end()
                await client.call("sub_close", {"sub_id": sub_id})

            # Without a connection that a lane of sub_open could belong to, each listens for itself.
            async def listen(pauses: bool = False) -> None:
                async with client.subscription(uri) as changed:
                    readers.append(reader := Reader(client, uri, changed))
                    if pauses:
                        await reader.news()
                        await anyio.sleep(1)
                    await reader.to_the_end()

            async with anyio.create_task_group() as tasks:
                if CONNECTED:
                    tasks.start_soon(lane, "snapshot")
                    tasks.start_soon(lane, "block_slow")
                    tasks.start_soon(lane, "drop_oldest", True)
                else:
                    tasks.start_soon(listen)
                    tasks.start_soon(listen)
                    tasks.start_soon(listen, True)
            assert len(readers) == 3
            for reader in readers:
                reader.has_read(PACED, digest)
            # A stream that was closed is found closed a moment later.
            with anyio.fail_after(10):
                while (await client.ok("sub_list", uri_prefix=uri))["subs"]:
                    await anyio.sleep(0.05)

    async def output_is_whole_where_there_is_room(self) -> None:
        async with self._roomy() as (client, session):
            name, digest = await self._file(client, session, UNPACED)
            uri = await self._start(client, session, f"cat {name}")
            async with client.subscription(uri) as changed:
                reader = Reader(client, uri, changed)
                await reader.to_the_end()
            reader.has_read(UNPACED, digest)

    async def what_was_dropped_is_marked(self) -> None:
        name, _ = await self._file(self.client, self.session, UNPACED)
        gate = f"gate-{uuid.uuid4()}"
        command = f"head -c 1000 {name}; while [ ! -e {gate} ]; do sleep 0.05; done; tail -c +1001 {name}"
        uri = await self._start(self.client, self.session, command)
        async with self.client.subscription(uri) as changed:
            reader = Reader(self.client, uri, changed)
            while reader.size < 1000:
                await reader.news()
            # The rest is read when all of it has been written, and what the history could not keep is gone.
            await self._run(f"touch {gate}")
            ended = await self.client.ok("ssh_exec_output", command_id=uri.split("/")[2], wait=True)
            assert ended["status"] == "completed", ended
            await reader.to_the_end()
        assert len(reader.gaps) == 1 and reader.size + reader.gaps[0] == UNPACED, (reader.size, reader.gaps)
        tail = UNPACED - 1000 - reader.gaps[0]
        assert reader.digest.hexdigest() == (await self._run(f"tail -c {tail} {name} | sha256sum")).split()[0]

    async def a_lane_is_steered_while_it_is_live(self) -> str | None:
        # One of sub_open belongs to a connection.
        if not CONNECTED:
            return "-"
        client = self.client
        gates = Gates(client, self.session)
        parts = "; ".join(f"{gates.wait(nth)}; echo even {nth}; echo odd {nth}" for nth in (1, 2, 3))
        uri = await self._start(client, self.session, f"{parts}; {gates.wait('end')}; echo last")
        some = await SteeredLane.open(client, uri, lag_policy="drop_newest", filter="^even")
        whole = await SteeredLane.open(client, uri, lag_policy="drop_oldest")
        await gates.open(1)
        await some.reads("even 1\n")
        await whole.reads("even 1\nodd 1\n")

        await some.steer("sub_pause")
        await whole.steer("sub_pause")
        before = await some.sent(), await whole.sent()
        await gates.open(2)
        await client.ok("sub_wait", uris=[uri], until="match", patterns=["odd 2"])
        assert (await some.sent(), await whole.sent()) == before, before
        await some.steer("sub_resume")
        await whole.steer("sub_resume")
        await some.reads("even 2\n")
        await whole.reads("even 2\nodd 2\n")

        await some.steer("sub_filter", regex="^odd")
        await gates.open(3)
        await some.reads("odd 3\n")
        await whole.reads("even 3\nodd 3\n")
        await some.steer("sub_filter", regex="")
        await gates.open("end")
        for lane in (some, whole):
            await lane.reads("last\n")
            await lane.to_the_end()

        text = "even 1\nodd 1\neven 2\nodd 2\neven 3\nodd 3\nlast\n"
        replayed = await whole.steer("sub_replay", from_cursor=0)
        facts = replayed["from_cursor"], replayed["bytes"], replayed["overflow"]
        assert facts == (0, len(text), False), replayed
        await whole.reads(text)
        replayed = await some.steer("sub_replay", bytes=5)
        assert replayed["from_cursor"] == len(text) - 5, replayed
        await some.reads("last\n")
        for lane in (some, whole):
            assert (await lane.steer("sub_close"))["status"] == "ok"

    async def an_ended_command_tells_so_once(self) -> None:
        client = self.client
        started = await client.ok("ssh_exec", session_id=self.session, command="echo hi", wait=True)
        uri = f"command://{started['command_id']}/output"
        async with client.subscription(uri) as changed:
            told = 0

            async def once() -> int:
                nonlocal told
                told += (count := await changed())
                return count

            reader = Reader(client, uri, once)
            await reader.news()
            assert (reader.size, reader.meta["status"], reader.meta["exit_code"]) == (3, "completed", 0), reader
            assert reader.digest.hexdigest() == hashlib.sha256(b"hi\n").hexdigest()
            with anyio.move_on_after(0.5):
                await once()
            assert told == 1, told

    async def sub_wait_follows_a_command(self) -> None:
        command = "for i in 1 2 3 4 5; do echo line $i; sleep 0.1; done"
        uri = await self._start(self.client, self.session, command)
        delta, cursor, status = "", 0, "running"
        while status == "running":
            place = "" if CONNECTED else f"?cursor={cursor}"
            answer = await self.client.ok("sub_wait", uris=[uri + place], until="news")
            (item,) = answer["items"]
            assert answer["status"] in ("news", "ended") and item["bytes"] == item["total"], answer
            delta, cursor, status = delta + item["delta"], item["cursor"], item["status"]
        assert (status, item["exit_code"], item["more"]) == ("completed", 0, False), item
        assert delta == "".join(f"line {i}\n" for i in range(1, 6)), delta

        uri = await self._start(self.client, self.session, command + "; sleep 30")
        answer = await self.client.ok("sub_wait", uris=[uri], until="match", patterns=["line [34]"])
        (item,) = answer["items"]
        assert (answer["status"], item["status"]) == ("matched", "running"), answer
        assert item["matched_pattern"] == "line [34]" and "line 3\n" in item["delta"], item
        await self.client.ok("ssh_exec_cancel", command_id=uri.split("/")[2])

    async def recipes_are_shown_and_completed(self) -> None:
        prompts = {prompt["name"]: prompt for prompt in await self.client.prompts()}
        recipe = prompts["push_first_long_command"]
        names = [(argument["name"], argument.get("required", False)) for argument in recipe["arguments"]]
        assert names == [("session_id", True), ("command", True), ("lag_policy", False)], recipe
        given = {"session_id": self.session, "command": "make all"}
        (message,) = (await self.client.prompt("push_first_long_command", given))["messages"]
        assert message["role"] == "user", message
        for word in (self.session, "make all", "ssh_exec", "snapshot"):
            assert word in message["content"]["text"], (word, message)
        offered = await self.client.complete("push_first_long_command", "session_id", self.session[:13])
        assert offered["values"][0] == self.session, offered

    async def a_changed_list_is_told(self) -> None:
        async with self.client.subscription(None) as changed:
            uri = await self._start(self.client, self.session, "true")
            with anyio.fail_after(20):
                await changed()
        assert uri in await self.client.listed()

    async def nothing_is_left(self) -> None:
        closed = await self.client.ok("ssh_disconnect", session_id=self.session)
        assert (closed["status"], closed["session_id"]) == ("ok", self.session), closed
        assert (await self.client.ok("ssh_sessions", agent_id=self.agent))["count"] == 0

    async def _run(self, command: str) -> str:
        answer = await self.client.ok("ssh_exec", session_id=self.session, command=command, wait=True)
        assert answer["exit_code"] == 0, answer
        return answer["stdout"]

    @staticmethod
    async def _start(client: Client, session: str, command: str) -> str:
        started = await client.ok("ssh_exec", session_id=session, command=command)
        return f"command://{started['command_id']}/output"

    @staticmethod
    async def _file(client: Client, session: str, size: int) -> tuple[str, str]:
        """A remote file of random bytes, and their SHA-256 as the remote machine knows it."""
        name = f"bytes-{uuid.uuid4()}"
        command = f"head -c {size} /dev/urandom >{name}; sha256sum {name}"
        answer = await client.ok("ssh_exec", session_id=session, command=command, wait=True)
        return name, answer["stdout"].split()[0]

    @staticmethod
    async def _pause(client: Client, sub_id: str) -> None:
        """Pauses a lane for a second, in which it says nothing but what it was saying."""
        assert (await client.ok("sub_pause", sub_id=sub_id))["paused"] is True
        before = await client.ok("sub_stats", sub_id=sub_id)
        await anyio.sleep(1)
        after = await client.ok("sub_stats", sub_id=sub_id)
        assert after["events_sent"] - before["events_sent"] <= 1, (before, after)
        assert (await client.ok("sub_resume", sub_id=sub_id))["paused"] is False

    @asynccontextmanager
    async def _roomy(self) -> AsyncIterator[tuple[Client, str]]:
        """A client of the server with longer histories, and a session."""
        host = self.host
        login = {"address": host["address"], "username": host["user"], "password": host["password"]}
        async with self.connect(ROOMY) as client:
            opened = await client.ok("ssh_connect", **login, agent_id=self.agent, reuse="force_new")
            yield client, opened["session_id"]
            await client.ok("ssh_disconnect", session_id=opened["session_id"])


def paced(name: str) -> str:
    """Writes a file, 0.5 MB ten times a second."""
    piece = f"dd if={name} bs=500000 skip=$i count=1 status=none"
    return f"i=0; while [ $i -lt {PACED // 500_000} ]; do {piece}; i=$((i + 1)); sleep 0.1; done"


SCENARIOS = [name for name in vars(Story) if not name.startswith("_")]


def say(word: str, scenario: str, began: float) -> None:
    took = time.monotonic() - began
    print(f"{word:6} {NAME} {TRANSPORT} {MODE}: {scenario.replace('_', ' ')} ({took:.1f} s)", flush=True)


async def tell(connect: Callable[[str], Any]) -> None:
    """Connects by `connect(target)`, a context of a `Client`, and tells the story, one line per scenario."""
    complaints = Complaints()
    scenario, began = "handshake", time.monotonic()
    try:
        async with connect(TARGET) as client:
            assert client.revision == ("2025-11-25" if MODE == "legacy" else "2026-07-28"), client.revision
            say("ok", scenario, began)
            story = Story(client, connect)
            for scenario in SCENARIOS:
                began = time.monotonic()
                say(await getattr(story, scenario)() or "ok", scenario, began)
        scenario, began = "nothing to complain about", time.monotonic()
        assert not complaints.heard, complaints.heard
        say("ok", scenario, began)
    except BaseException:
        say("FAILED", scenario, began)
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
        error = record.exc_info[1] if record.exc_info else None
        # A notification that comes while the client closes finds its stream closed; the library
        # of the second line logs that as a message that it cannot parse.
        if not isinstance(error, (anyio.BrokenResourceError, anyio.ClosedResourceError)):
            self.heard.append(f"{record.name}: {record.getMessage()}: {error!r}")
