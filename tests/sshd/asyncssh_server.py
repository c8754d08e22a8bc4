"""An AsyncSSH server for tests: runs commands and shells, and asks for more than one thing.

    asyncssh_server.py PORT AUTHORIZED_KEYS PASSWORD

How a user logs in is in its name: "asked" is asked for the password and a colour in one round, then for nothing in
another; "banners" is shown many of them; everybody else does what sshd would have them do.
"""

import asyncio
import fcntl
import os
import signal
import sys
import termios

import asyncssh

PORT, AUTHORIZED_KEYS, PASSWORD = int(sys.argv[1]), sys.argv[2], sys.argv[3]
HOME = os.path.dirname(os.path.dirname(AUTHORIZED_KEYS))


class Server(asyncssh.SSHServer):
    def connection_made(self, connection):
        self.connection = connection
        self.rounds = 0

    def begin_auth(self, user):
        self.user = user
        if user == "banners":
            for _ in range(400):
                self.connection.send_auth_banner("All use of this host is watched. " * 500)
        # Read anew: keys are made when a test first asks for one, and an empty file is none to AsyncSSH.
        if os.path.getsize(AUTHORIZED_KEYS) > 0:
            self.connection.set_authorized_keys(AUTHORIZED_KEYS)
        return True

    def password_auth_supported(self):
        return self.user != "asked"

    def validate_password(self, user, password):
        return password == PASSWORD

    def kbdint_auth_supported(self):
        return self.user == "asked"

    def get_kbdint_challenge(self, user, lang, submethods):
        return "", "", "", [("Password: ", False), ("Favourite colour: ", True)]

    def validate_kbdint_response(self, user, responses):
        self.rounds += 1
        if self.rounds == 1:
            if responses and responses[0] == PASSWORD:
                return "", "Thank you.", "", []
            return False
        return not responses


async def run(process):
    program = ["/bin/bash", "--norc"] if process.command is None else ["/bin/bash", "-c", process.command]
    kinds = dict(start_new_session=True, cwd=HOME, env={**os.environ, "HOME": HOME, **process.env})
    if process.term_type:
        status = await on_terminal(process, program, kinds)
    else:
        status = await on_pipes(process, program, kinds)
    if status < 0:
        process.exit_with_signal(signal.Signals(-status).name.removeprefix("SIG"))
    else:
        process.exit(status)


async def on_pipes(process, program, kinds):
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(*program, stdin=pipe, stdout=pipe, stderr=pipe, **kinds)

    async def write(data):
        child.stdin.write(data)
        await child.stdin.drain()

    typing = asyncio.create_task(feed(process, child, write, child.stdin.close))
    await asyncio.gather(pump(child.stdout, process.stdout), pump(child.stderr, process.stderr))
    status = await child.wait()
    typing.cancel()
    return status


async def on_terminal(process, program, kinds):
    ours, theirs = os.openpty()
    child = await asyncio.create_subprocess_exec(
        *program, stdin=theirs, stdout=theirs, stderr=theirs,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0), **kinds,
    )
    os.close(theirs)

    async def write(data):
        os.write(ours, data)

    typing = asyncio.create_task(feed(process, child, write, lambda: os.write(ours, b"\x04")))
    while True:
        try:
            data = await asyncio.to_thread(os.read, ours, 65536)
        except OSError:
            # The last program has let go of the terminal.
            break
        process.stdout.write(data)
        await process.stdout.drain()
    status = await child.wait()
    typing.cancel()
    os.close(ours)
    return status


async def pump(source, sink):
    while data := await source.read(65536):
        sink.write(data)
        await sink.drain()


async def feed(process, child, write, end):
    while True:
        try:
            data = await process.stdin.read(65536)
        except asyncssh.TerminalSizeChanged:
            continue
        except asyncssh.SignalReceived as received:
            os.killpg(child.pid, signal.Signals["SIG" + received.signal])
            continue
        if not data:
            break
        await write(data)
    end()


async def main():
    await asyncssh.create_server(
        Server, "127.0.0.1", PORT, process_factory=run, encoding=None, line_editor=False,
        server_host_keys=[asyncssh.generate_private_key("ecdsa-sha2-nistp384")],
    )
    print("listening", file=sys.stderr, flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
