// What every JavaScript client does with the product, told once; a client is how to say it:
// {revision, tools(), compile(schema), call(name, arguments), read(uri), notFound, close()}. story.py is the same for Python.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";

/** The arguments of every client program: `NAME stdio|http PROGRAM|URL MODE TOOLS`. */
const [name, transport, target, mode, tools] = process.argv.slice(2);

/** Connects by `connect({transport, target, mode})` and tells the story, one line per scenario. */
export async function tell(connect) {
  const host = JSON.parse(process.env.SSHD);
  const complaints = hearComplaints();
  const say = (word, scenario) => console.log(`${word.padEnd(6)} ${name} ${transport} ${mode}: ${scenario}`);
  let client;
  let scenario = "handshake";
  try {
    client = await connect({ transport, target, mode });
    const wanted = mode === "legacy" ? "2025-11-25" : "2026-07-28";
    assert.equal(client.revision, wanted);
    say("ok", scenario);
    const known = {};
    for (const [title, play] of Object.entries(scenarios)) {
      scenario = title;
      await play(client, known, host);
      say("ok", scenario);
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

  async "nothing is left"(client, known) {
    const closed = await ok(client, "ssh_disconnect", { session_id: known.session });
    assert.deepEqual([closed.status, closed.session_id], ["ok", known.session]);
    assert.equal((await ok(client, "ssh_sessions", { agent_id: known.agent })).count, 0);
  },
};

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
