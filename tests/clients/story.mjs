// What every JavaScript client does with the product, told once; a client is how to say it:
// {revision, tools(), compile(schema), call(name, arguments), read(uri), listed(), prompts(), prompt(name, arguments),
// complete(prompt, argument, value), subscribe(uri), notFound, close()}. Without a URI, subscribe() is to the list of
// resources; it answers how to unsubscribe. What is heard rings the bells given to connect(); a client that is given pieces
// declares that it takes bytes in notifications, and puts what they carry there. story.py is the same for Python.
import assert from "node:assert/strict";
import { createHash, randomUUID } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

/** The arguments of every client program: `NAME stdio|http PROGRAM|URL PROGRAM|URL MODE TOOLS`. The second target keeps
 * 64 MiB of what a command writes, the first 10, and it queues 16 events of a lane, the first 1,024. */
const [name, transport, target, roomy, mode, tools] = process.argv.slice(2);

/** Whether a connection outlives a request; what the revision of 2026 does over HTTP has none. */
const connected = transport === "stdio" || mode === "legacy";

/** How much a command writes at 5 MB/s, and how much one writes as fast as it can: more than a history of 10 MiB. */
const paced = Number(process.env.PUSH_MB) * 1_000_000;
const unpaced = Math.max(paced, 15_000_000);

/** What a client declares that takes bytes in notifications, which those of `output` carry. */
export const takesBytes = { experimental: { ssh_inline_push: { version: "1", encodings: ["base64", "utf8"] } } };
export const output = "notifications/ssh/output";

/** Who sits at a client and is asked about host keys. */
class User {
  asked = [];
  trusts = false;

  /** What is said to a question. */
  decide(message) {
    this.asked.push(message);
    return this.trusts ? { action: "accept", content: { trust: true } } : { action: "decline" };
  }
}

/** Connects by `connect({transport, target, mode, bells, pieces, user})` and tells the story, one line per scenario. */
export async function tell(connect) {
  const host = JSON.parse(process.env.SSHD);
  const enter = async (target, pieces) => {
    const [bells, user] = [new Bells(), new User()];
    return Object.assign(await connect({ transport, target, mode, bells, pieces, user }), { bells, user });
  };
  // A client of the server with longer histories and shorter queues, and a session.
  const enterRoomy = async (pieces) => {
    const client = await enter(roomy, pieces);
    const login = { address: host.address, username: host.user, password: host.password };
    const { session_id } = await ok(client, "ssh_connect", { ...login, reuse: "force_new" });
    const leave = async () => {
      await ok(client, "ssh_disconnect", { session_id });
      await client.close();
    };
    return { client, session: session_id, leave };
  };
  const complaints = hearComplaints();
  let began = performance.now();
  const say = (word, scenario) => {
    const took = ((performance.now() - began) / 1000).toFixed(1);
    console.log(`${word.padEnd(6)} ${name} ${transport} ${mode}: ${scenario} (${took} s)`);
    began = performance.now();
  };
  let client;
  let scenario = "handshake";
  try {
    client = await enter(target);
    const wanted = mode === "legacy" ? "2025-11-25" : "2026-07-28";
    assert.equal(client.revision, wanted);
    say("ok", scenario);
    const known = { enterRoomy };
    for (const [title, play] of Object.entries(scenarios)) {
      scenario = title;
      say((await play(client, known, host)) ?? "ok", scenario);
    }
    scenario = "nothing to complain about";
    await client.close();
    assert.deepEqual(complaints, []);
    say("ok", scenario);
  } catch (error) {
    say("FAILED", scenario);
    console.log(error?.stack ?? error, complaints);
    process.exit(1);
  }
  // A client library may keep a timer or a socket for itself.
  process.exit(0);
}

const scenarios = {
  async "tools are listed"(client) {
    const listed = await client.tools();
    assert.deepEqual(listed.map((tool) => tool.name).sort(), readFileSync(tools, "utf8").trim().split("\n").sort());
    for (const tool of listed) {
      assert.equal(tool.inputSchema.type, "object", tool.name);
      assert.equal(tool.outputSchema.type, "object", tool.name);
      assert.equal(typeof tool.annotations.readOnlyHint, "boolean", tool.name);
      assert.ok(tool.title && tool.description.length <= 600, tool.name);
      client.compile(tool.outputSchema);
    }
  },

  async "a session opens"(client, known, host) {
    known.agent = `agent-${randomUUID()}`;
    const login = { address: host.address, username: host.user, password: host.password };
    // A run that failed may have left a session.
    const answer = await ok(client, "ssh_connect", { ...login, agent_id: known.agent, reuse: "force_new" });
    assert.equal(answer.status, "ok");
    assert.equal(answer.host_key.fingerprint, host.host_key_fingerprint);
    known.session = answer.session_id;
  },

  async "an unknown host key is put to the user"(client, known, host) {
    const file = `${process.env.HOME}/known-${randomUUID()}`;
    const login = { target: `${host.user}@${host.address}`, password: host.password, ssh_config_file: "none" };
    const asking = { ...login, known_hosts_file: file, strict_host_key_checking: "ask", reuse: "force_new" };
    const refused = (await client.call("ssh_connect", asking)).structuredContent;
    assert.equal(refused.code, "HOST_KEY_UNKNOWN");
    assert.match(refused.detail, /does not trust/);
    assert.ok(!existsSync(file) && client.user.asked[0].includes(host.host_key_fingerprint));
    client.user.trusts = true;
    const { session_id, host_key } = await ok(client, "ssh_connect", asking);
    assert.deepEqual([host_key.status, client.user.asked.length], ["learnt", 2]);
    await ok(client, "ssh_disconnect", { session_id });
  },

  async "a command runs"(client, known) {
    const command = "printf 'out\\n'; printf 'err\\n' >&2; exit 3";
    const answer = await ok(client, "ssh_exec", { session_id: known.session, command, wait: true });
    assert.equal(answer.status, "completed");
    assert.deepEqual([answer.exit_code, answer.stdout, answer.stderr], [3, "out\n", "err\n"]);
  },

  async "a background command is read by cursor"(client, known) {
    // It goes on when a file is there, so that it runs during the first read and has ended before the second.
    const gate = `gate-${randomUUID()}`;
    const command = `echo one; while [ ! -e ${gate} ]; do sleep 0.05; done; echo two`;
    const started = await ok(client, "ssh_exec", { session_id: known.session, command });
    assert.equal(started.status, "started");
    const uri = `command://${started.command_id}/output?stream=stdout&cursor=`;
    const first = await client.read(uri + 0);
    assert.equal(first._meta.status, "running");
    await ok(client, "ssh_exec", { session_id: known.session, command: `touch ${gate}`, wait: true });
    const ended = await ok(client, "ssh_exec_output", { command_id: started.command_id, wait: true });
    assert.deepEqual([ended.status, ended.exit_code, ended.stdout], ["completed", 0, "one\ntwo\n"]);
    const second = await client.read(uri + first._meta.cursor);
    assert.equal(first.text + second.text, "one\ntwo\n");
    assert.deepEqual([second._meta.status, second._meta.exit_code, second._meta.cursor], ["completed", 0, 8]);
    assert.equal((await client.read(uri + 4)).text, "two\n");
  },

  async "a shell answers"(client, known) {
    const open = { session_id: known.session, shell: "/bin/sh", env: { PS1: "$ " } };
    const { shell_id } = await ok(client, "ssh_shell_open", open);
    await ok(client, "ssh_shell_write", { shell_id, input: "echo $((6 * 7)) is the answer\n" });
    const found = await ok(client, "ssh_shell_wait_for", { shell_id, patterns: ["42 is the answer"] });
    assert.deepEqual([found.status, found.matched_pattern], ["matched", "42 is the answer"]);
    assert.equal((await ok(client, "ssh_shell_close", { shell_id })).status, "ok");
  },

  async "errors say what is wrong"(client, known) {
    const wrong = { session_id: known.session, command: "true", timeout_secs: "soon" };
    const answer = await refused(client, "ssh_exec", wrong, "INVALID_ARGUMENT");
    assert.match(answer.reason, /timeout_secs/);
    const unknown = await refused(client, "ssh_exec", { session_id: randomUUID(), command: "true" }, "SESSION_NOT_FOUND");
    assert.ok(unknown.detail.includes(known.session), unknown.detail);
    await assert.rejects(client.read(`command://${randomUUID()}/output`), { code: client.notFound });
  },

  async "a session tells its health"(client, known, host) {
    const health = JSON.parse((await client.read(`session://${known.session}/health`)).text);
    assert.deepEqual([health.session_id, health.username, health.healthy], [known.session, host.user, true]);
    assert.equal(`${health.host}:${health.port}`, host.address);
  },

  async "a running command is followed"(client, known) {
    const { name, digest } = await makeFile(client, known.session, paced);
    const uri = await start(client, known.session, pacing(name));
    const unsubscribe = await client.subscribe(uri);
    const reader = new Reader(client, uri, client.bells.hear(uri));
    await reader.toTheEnd();
    await unsubscribe();
    reader.hasRead(paced, digest);
  },

  async "subscribers do not disturb each other"(_, known) {
    const { client, session, leave } = await known.enterRoomy();
    const { name, digest } = await makeFile(client, session, paced);
    const uri = await start(client, session, pacing(name));

    const lane = async (policy, pauses) => {
      // Its notifications carry the URI as it is spelled here.
      const spelled = `${uri}?reader=${policy}`;
      // A reader that is late at the end still finds the lane.
      const { sub_id } = await ok(client, "sub_open", { uri: spelled, lag_policy: policy, grace_ms: 60_000 });
      const reader = new Reader(client, uri, client.bells.hear(spelled), `sub_id=${sub_id}`);
      if (pauses) {
        await reader.news();
        await pause(client, sub_id);
        // The end may have been told before.
        await reader.read();
      }
      await reader.toTheEnd();
      await client.call("sub_close", { sub_id });
      return reader;
    };
    // Without a connection that a lane of sub_open could belong to, each listens for itself.
    const listen = async (spelled, pauses) => {
      const unsubscribe = await client.subscribe(spelled);
      const reader = new Reader(client, uri, client.bells.hear(spelled));
      if (pauses) {
        await reader.news();
        await sleep(1000);
      }
      await reader.toTheEnd();
      await unsubscribe();
      return reader;
    };
    const readers = connected
      ? [lane("snapshot"), lane("block_slow"), lane("drop_oldest", true)]
      : [listen(`${uri}?reader=1`), listen(`${uri}?reader=2`), listen(`${uri}?reader=3`, true)];
    for (const reader of await Promise.all(readers)) reader.hasRead(paced, digest);
    // A stream that was closed is found closed a moment later; the run has a time limit.
    while ((await ok(client, "sub_list", { uri_prefix: uri })).subs.length > 0) await sleep(50);
    await leave();
  },

  async "output is whole where there is room"(_, known) {
    const { client, session, leave } = await known.enterRoomy();
    const { name, digest } = await makeFile(client, session, unpaced);
    const uri = await start(client, session, `cat ${name}`);
    const unsubscribe = await client.subscribe(uri);
    const reader = new Reader(client, uri, client.bells.hear(uri));
    await reader.toTheEnd();
    await unsubscribe();
    reader.hasRead(unpaced, digest);
    await leave();
  },

  async "what was dropped is marked"(client, known) {
    const { name } = await makeFile(client, known.session, unpaced);
    const gate = `gate-${randomUUID()}`;
    const command = `head -c 1000 ${name}; while [ ! -e ${gate} ]; do sleep 0.05; done; tail -c +1001 ${name}`;
    const uri = await start(client, known.session, command);
    const unsubscribe = await client.subscribe(uri);
    const reader = new Reader(client, uri, client.bells.hear(uri));
    while (reader.size < 1000) await reader.news();
    // The rest is read when all of it has been written, and what the history could not keep is gone.
    await run(client, known.session, `touch ${gate}`);
    const ended = await ok(client, "ssh_exec_output", { command_id: uri.split("/")[2], wait: true });
    assert.equal(ended.status, "completed");
    await reader.toTheEnd();
    await unsubscribe();
    assert.equal(reader.gaps.length, 1);
    assert.equal(reader.size + reader.gaps[0], unpaced);
    const tail = `tail -c ${reader.size - 1000} ${name} | sha256sum`;
    assert.equal(reader.hash.digest("hex"), (await run(client, known.session, tail)).split(" ")[0]);
  },

  async "a lane is steered while it is live"(client, known) {
    // One of sub_open belongs to a connection.
    if (!connected) return "-";
    const gates = new Gates(client, known.session);
    const part = (nth) => `${gates.wait(nth)}; echo even ${nth}; echo odd ${nth}`;
    const command = `${[1, 2, 3].map(part).join("; ")}; ${gates.wait("end")}; echo last`;
    const uri = await start(client, known.session, command);
    const some = await SteeredLane.open(client, uri, { lag_policy: "drop_newest", filter: "^even" });
    const all = await SteeredLane.open(client, uri, { lag_policy: "drop_oldest" });
    await gates.open(1);
    await some.reads("even 1\n");
    await all.reads("even 1\nodd 1\n");

    for (const lane of [some, all]) await lane.steer("sub_pause");
    const before = [await some.sent(), await all.sent()];
    await gates.open(2);
    await ok(client, "sub_wait", { uris: [uri], until: "match", patterns: ["odd 2"] });
    assert.deepEqual([await some.sent(), await all.sent()], before);
    for (const lane of [some, all]) await lane.steer("sub_resume");
    await some.reads("even 2\n");
    await all.reads("even 2\nodd 2\n");

    await some.steer("sub_filter", { regex: "^odd" });
    await gates.open(3);
    await some.reads("odd 3\n");
    await all.reads("even 3\nodd 3\n");
    await some.steer("sub_filter", { regex: "" });
    await gates.open("end");
    for (const lane of [some, all]) {
      await lane.reads("last\n");
      await lane.toTheEnd();
    }

    const whole = "even 1\nodd 1\neven 2\nodd 2\neven 3\nodd 3\nlast\n";
    const replayed = await all.steer("sub_replay", { from_cursor: 0 });
    assert.deepEqual([replayed.from_cursor, replayed.bytes, replayed.overflow], [0, whole.length, false]);
    await all.reads(whole);
    const tail = await some.steer("sub_replay", { bytes: 5 });
    assert.equal(tail.from_cursor, whole.length - 5);
    await some.reads("last\n");
    for (const lane of [some, all]) assert.equal((await lane.steer("sub_close")).status, "ok");
  },

  async "a policy loses what it says, and says so"(_, known) {
    if (!connected) return "-";
    const pieces = [];
    const { client, session, leave } = await known.enterRoomy(pieces);
    const gates = new Gates(client, session);
    const paced = `for i in $(seq 101 200); do echo $i; sleep 0.02; done`;
    const uri = await start(client, session, `${gates.wait("go")}; ${paced}; ${gates.wait("rest")}; echo tail`);
    const open = async (lag_policy) => {
      const { sub_id } = await ok(client, "sub_open", { uri, lag_policy, debounce_ms: 5, inline_push: true });
      await ok(client, "sub_pause", { sub_id });
      return sub_id;
    };
    const [oldest, newest] = [await open("drop_oldest"), await open("drop_newest")];
    await gates.open("go");
    await ok(client, "sub_wait", { uris: [uri], until: "match", patterns: ["200"], timeout_secs: 30 });
    const told = async (sub_id, isEnough) => {
      const of = () => pieces.filter((piece) => piece.sub_id === sub_id);
      while (!of().some(isEnough)) await sleep(20);
      return of();
    };
    for (const sub_id of [oldest, newest]) {
      await ok(client, "sub_resume", { sub_id });
      await told(sub_id, () => true);
    }
    await gates.open("rest");
    const whole = Array.from({ length: 100 }, (_, i) => `${101 + i}\n`).join("");
    for (const sub_id of [oldest, newest]) {
      const said = await told(sub_id, (piece) => piece.closed);
      const [text, lossy] = [said.map((piece) => piece.text).join(""), said.filter((piece) => piece.gap_bytes)];
      assert.deepEqual([said.map(({ seq }) => seq), lossy.length], [[...said.keys()], 1], JSON.stringify(said));
      const lost = lossy[0].gap_bytes;
      assert.ok(lossy[0].dropped > 0 && lost > 0, JSON.stringify(lossy));
      const kept = sub_id === oldest ? whole.slice(lost) : whole.slice(0, whole.length - lost);
      assert.equal(text, `${kept}tail\n`);
      // The hole is marked where it is.
      assert.equal(lossy[0], sub_id === oldest ? said[0] : said.find((piece) => piece.text === "tail\n"));
      assert.deepEqual([said.at(-1).reason, said.at(-1).exit_code], ["completed", 0]);
    }
    await leave();
  },

  async "an ended command tells so once"(client, known) {
    const started = await ok(client, "ssh_exec", { session_id: known.session, command: "echo hi", wait: true });
    const uri = `command://${started.command_id}/output`;
    const unsubscribe = await client.subscribe(uri);
    const changed = client.bells.hear(uri);
    let told = 0;
    const reader = new Reader(client, uri, async (signal) => (told += await changed(signal)));
    await reader.news();
    assert.deepEqual([reader.size, reader.meta.status, reader.meta.exit_code], [3, "completed", 0]);
    assert.equal(reader.hash.digest("hex"), createHash("sha256").update("hi\n").digest("hex"));
    told += (await within(500, changed)) ?? 0;
    assert.equal(told, 1);
    await unsubscribe();
  },

  async "sub_wait follows a command"(client, known) {
    const command = "for i in 1 2 3 4 5; do echo line $i; sleep 0.1; done";
    const uri = await start(client, known.session, command);
    let [delta, item] = ["", { status: "running", cursor: 0 }];
    while (item.status === "running") {
      const place = connected ? "" : `?cursor=${item.cursor}`;
      const answer = await ok(client, "sub_wait", { uris: [uri + place], until: "news" });
      [item] = answer.items;
      assert.ok(["news", "ended"].includes(answer.status) && item.bytes === item.total, JSON.stringify(answer));
      delta += item.delta;
    }
    assert.deepEqual([item.status, item.exit_code, item.more], ["completed", 0, false]);
    assert.equal(delta, "line 1\nline 2\nline 3\nline 4\nline 5\n");

    const waiting = await start(client, known.session, `${command}; sleep 30`);
    const answer = await ok(client, "sub_wait", { uris: [waiting], until: "match", patterns: ["line [34]"] });
    [item] = answer.items;
    assert.deepEqual([answer.status, item.status, item.matched_pattern], ["matched", "running", "line [34]"]);
    assert.ok(item.delta.includes("line 3\n"), item.delta);
    await ok(client, "ssh_exec_cancel", { command_id: waiting.split("/")[2] });
  },

  async "recipes are shown and completed"(client, known) {
    const recipe = (await client.prompts()).find(({ name }) => name === "push_first_long_command");
    const names = recipe.arguments.map(({ name, required }) => [name, required ?? false]);
    assert.deepEqual(names, [["session_id", true], ["command", true], ["lag_policy", false]]);
    const { messages } = await client.prompt(recipe.name, { session_id: known.session, command: "make all" });
    assert.deepEqual(messages.map(({ role }) => role), ["user"]);
    for (const word of [known.session, "make all", "ssh_exec", "snapshot"]) {
      assert.ok(messages[0].content.text.includes(word), word);
    }
    const offered = await client.complete(recipe.name, "session_id", known.session.slice(0, 13));
    assert.equal(offered.values[0], known.session);
  },

  async "a changed list is told"(client, known) {
    const unsubscribe = await client.subscribe(undefined);
    const changed = client.bells.hear(undefined);
    const uri = await start(client, known.session, "true");
    assert.ok(await within(20_000, changed), "the list was not heard of");
    await unsubscribe();
    assert.ok((await client.listed()).includes(uri), uri);
  },

  async "nothing is left"(client, known) {
    const closed = await ok(client, "ssh_disconnect", { session_id: known.session });
    assert.deepEqual([closed.status, closed.session_id], ["ok", known.session]);
    assert.equal((await ok(client, "ssh_sessions", { agent_id: known.agent })).count, 0);
  },
};

/** What a connection has been notified of: one bell for each URI, and one, `undefined`, for the list of resources. */
class Bells {
  #rung = new Map();
  #waiting = new Set();

  ring(uri) {
    this.#rung.set(uri, (this.#rung.get(uri) ?? 0) + 1);
    for (const wake of this.#waiting) wake();
  }

  /** A function that waits until there is news, and says how many notifications told of it. */
  hear(uri) {
    return async (signal) => {
      while (!this.#rung.has(uri) && !signal.aborted) {
        let wake;
        await new Promise((resolve) => {
          wake = resolve;
          this.#waiting.add(wake);
          signal.addEventListener("abort", wake, { once: true });
        });
        this.#waiting.delete(wake);
        signal.removeEventListener("abort", wake);
      }
      const rung = this.#rung.get(uri);
      this.#rung.delete(uri);
      return rung;
    };
  }
}

/** Reads a command to its end, whenever it is told to, and keeps count of the bytes. */
class Reader {
  hash = createHash("sha256");
  size = 0;
  gaps = [];
  meta = {};

  /** `cursor` is that of the connection, or of a lane; without either the reader keeps the place itself. */
  constructor(client, uri, changed, cursor = connected ? "cursor=auto" : undefined) {
    Object.assign(this, { client, uri, changed, cursor });
  }

  /** Waits to be notified and reads what there is. */
  async news() {
    assert.ok(await within(30_000, this.changed), "no news");
    await this.read();
  }

  /** Reads what there is. */
  async read() {
    do {
      const query = this.cursor ?? `cursor=${this.meta.cursor ?? 0}`;
      const contents = await this.client.read(`${this.uri}?${query}&stream=merged&encoding=base64`);
      const piece = Buffer.from(contents.blob, "base64");
      this.meta = contents._meta;
      this.size += piece.length;
      const gap = this.meta.truncated_since_last_read;
      if (gap) {
        this.gaps.push(gap);
        // What comes behind it is looked at alone.
        this.hash = createHash("sha256");
      }
      this.hash.update(piece);
    } while (this.meta.more);
  }

  /** Reads on until the command has ended and nothing is left. */
  async toTheEnd() {
    while ((this.meta.status ?? "running") === "running") await this.news();
    assert.deepEqual([this.meta.status, this.meta.exit_code], ["completed", 0]);
  }

  /** All of it, and nothing else. */
  hasRead(size, digest) {
    assert.deepEqual([this.cursor, this.size, this.gaps], [this.cursor, size, []]);
    assert.equal(this.hash.digest("hex"), digest, this.cursor);
  }
}

/** Files that a command waits for. */
class Gates {
  #name = `gate-${randomUUID()}`;

  constructor(client, session) {
    Object.assign(this, { client, session });
  }

  /** Shell words that wait for one. */
  wait(which) {
    return `while [ ! -e ${this.#name}-${which} ]; do sleep 0.05; done`;
  }

  async open(which) {
    await run(this.client, this.session, `touch ${this.#name}-${which}`);
  }
}

/** A lane that only announces, and is read through. */
class SteeredLane {
  static async open(client, uri, options) {
    // Its notifications carry the URI as it is spelled here.
    const spelled = `${uri}?lane=${randomUUID()}`;
    const { sub_id } = await ok(client, "sub_open", { uri: spelled, grace_ms: 60_000, ...options });
    return Object.assign(new SteeredLane(), { client, uri, sub_id, changed: client.bells.hear(spelled) });
  }

  /** Reads, whenever there is news, until it has read just this. */
  async reads(expected) {
    let text = "";
    while (text !== expected) {
      assert.ok(await within(30_000, this.changed), `no news after ${JSON.stringify(text)}`);
      const read = await this.client.read(`${this.uri}?sub_id=${this.sub_id}&stream=merged`);
      this.meta = read._meta;
      text += read.text;
      assert.ok(expected.startsWith(text), JSON.stringify([expected, text]));
    }
  }

  /** Waits to be told of the end. */
  async toTheEnd() {
    while (this.meta.status === "running") {
      assert.ok(await within(30_000, this.changed), "no end");
      const read = await this.client.read(`${this.uri}?sub_id=${this.sub_id}&stream=merged`);
      this.meta = read._meta;
      assert.equal(read.text, "");
    }
  }

  async sent() {
    return (await ok(this.client, "sub_stats", { sub_id: this.sub_id })).events_sent;
  }

  steer(tool, args) {
    return ok(this.client, tool, { sub_id: this.sub_id, ...args });
  }
}

/** How many notifications came within a time; undefined if none did. */
function within(ms, changed) {
  return changed(AbortSignal.timeout(ms));
}

/** Pauses a lane for a second, in which it says nothing but what it was saying. */
async function pause(client, sub_id) {
  assert.equal((await ok(client, "sub_pause", { sub_id })).paused, true);
  const before = await ok(client, "sub_stats", { sub_id });
  await sleep(1000);
  const after = await ok(client, "sub_stats", { sub_id });
  assert.ok(after.events_sent - before.events_sent <= 1, JSON.stringify([before, after]));
  assert.equal((await ok(client, "sub_resume", { sub_id })).paused, false);
}

async function start(client, session_id, command) {
  const started = await ok(client, "ssh_exec", { session_id, command });
  return `command://${started.command_id}/output`;
}

async function run(client, session_id, command) {
  const answer = await ok(client, "ssh_exec", { session_id, command, wait: true });
  assert.equal(answer.exit_code, 0);
  return answer.stdout;
}

/** A remote file of random bytes, and their SHA-256 as the remote machine knows it. */
async function makeFile(client, session, size) {
  const name = `bytes-${randomUUID()}`;
  const told = await run(client, session, `head -c ${size} /dev/urandom >${name}; sha256sum ${name}`);
  return { name, digest: told.split(" ")[0] };
}

/** Writes a file, 0.5 MB ten times a second. */
function pacing(name) {
  const piece = `dd if=${name} bs=500000 skip=$i count=1 status=none`;
  return `i=0; while [ $i -lt ${paced / 500_000} ]; do ${piece}; i=$((i + 1)); sleep 0.1; done`;
}

/** Calls a tool that must succeed; both channels must name it. */
async function ok(client, tool, args) {
  const result = await client.call(tool, args);
  assert.ok(!result.isError, JSON.stringify(result.structuredContent));
  assert.ok(result.content[0].text.startsWith(`${tool.toUpperCase()}: `), result.content[0].text);
  assert.equal(result.structuredContent.tool, tool);
  return result.structuredContent;
}

/** Calls a tool that must be refused with `code`, in both channels. */
async function refused(client, tool, args, code) {
  const result = await client.call(tool, args);
  assert.equal(result.isError, true);
  assert.ok(result.content[0].text.includes(`REASON: [${code}]`), result.content[0].text);
  assert.equal(result.structuredContent.code, code);
  return result.structuredContent;
}

/** What a client library writes on the user's console, in the order of arrival. */
function hearComplaints() {
  const heard = [];
  for (const level of ["warn", "error", "info", "debug"]) {
    console[level] = (...words) => heard.push(`${level}: ${words.join(" ")}`);
  }
  process.on("warning", (warning) => heard.push(`warning: ${warning}`));
  return heard;
}
