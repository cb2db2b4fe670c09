#!/usr/bin/env python3
"""A Tidewire client in Python's standard library, written from docs/protocol.md.

  client.py pub room.42.chat hello
  client.py sub 'room.*.chat' --from earliest --position-file chat.position

It shows what a client has to do: answer pings, keep the position of what it
has handled, come back after a loss, repeat what was not answered.
"""
import argparse, base64, hashlib, http.client, json, os, random, signal, socket, sys, time, uuid
from pathlib import Path
from urllib.parse import urlsplit


class Lost(Exception):
    """Come back. args: why, and after how many seconds if the broker said so."""


class Refused(SystemExit):
    """The broker said no, and coming back would not change that: the program ends."""


class Connection:
    """One session over a WebSocket."""

    def __init__(self, args, subscriptions):
        url = urlsplit(args.url)
        self.socket = socket.create_connection((url.hostname, url.port or 80), timeout=10)
        self.input = self.socket.makefile("rb")
        self.upgrade(url.netloc, url.path.rstrip("/") or "/v1/ws")
        self.send({"type": "connect", "ref": 1, "client": "client.py/1.0", "subscriptions": subscriptions})
        welcome = check(self.receive())
        # Silence for longer than this means that the connection is dead.
        self.socket.settimeout((welcome["ping_interval_ms"] + welcome["ping_timeout_ms"]) / 1000)

    def upgrade(self, host, path):
        key = base64.b64encode(os.urandom(16)).decode()
        lines = ["GET %s HTTP/1.1" % path, "Host: " + host, "Connection: Upgrade", "Upgrade: websocket",
                 "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: " + key, "Sec-WebSocket-Protocol: tidewire.v1.json"]
        self.socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        status = (self.input.readline().decode().split(" ", 2) + ["", ""])[1]
        headers = http.client.parse_headers(self.input)
        if status != "101":
            problem = self.input.read(int(headers.get("content-length", 0))).decode()
            again = status in ("", "408", "429") or status >= "500"
            raise (Lost if again else Refused)("status %s %s" % (status, problem))
        accept = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
        if headers.get("sec-websocket-accept") != base64.b64encode(accept).decode():
            raise Refused("that is not a WebSocket server")

    def send(self, frame):
        self.write(1, json.dumps(frame).encode())

    def write(self, opcode, data):
        """Writes one WebSocket frame; a client's are masked."""
        size, mask = len(data), os.urandom(4)
        long = b"\xfe" + size.to_bytes(2, "big") if size < 65536 else b"\xff" + size.to_bytes(8, "big")
        head = bytes([0x80 | opcode]) + (bytes([0x80 | size]) if size < 126 else long)
        self.socket.sendall(head + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(data)))

    def read(self, size):
        data = self.input.read(size)
        if len(data) < size:
            raise Lost("the connection ended")
        return data

    def receive(self):
        """Returns the next frame of the protocol; pings are answered here."""
        text = b""
        while True:
            first, size = self.read(2)
            if size > 125:
                size = int.from_bytes(self.read(2 if size == 126 else 8), "big")
            data = self.read(size)
            if first & 15 == 8:
                code = int.from_bytes(data[:2], "big")
                never = code in (1002, 1003, 1007, 1008, 1009, 1010) or code // 500 in (7, 9)  # 3500, 4500
                raise (Refused if never else Lost)("closed with %d %s" % (code, data[2:].decode()))
            if first & 15 == 9:
                self.write(10, data)
            if first & 15 > 2:
                continue
            text += data
            if first & 0x80:
                frame, text = json.loads(text), b""
                if frame["type"] == "go_away":
                    raise Lost("told to go away", frame.get("reconnect_after_ms", 0) / 1000)
                if frame["type"] != "ping":
                    return frame
                self.send({"type": "pong", "seq": frame.get("seq", 0)})


def check(answer):
    """Raises what an error frame, or the error of a result, stands for."""
    error = answer if answer.get("type") == "error" else answer.get("error")
    if error:
        raise (Lost if error.get("retryable") else Refused)("%(code)s: %(message)s" % error)
    return answer


def forever(args, session, subscriptions):
    """Runs the session on one connection after another, until it returns."""
    failures = 0
    while True:
        try:
            connection = Connection(args, subscriptions())
            failures = 0
            with connection.socket, connection.input:
                return session(connection)
        except (OSError, ValueError, Lost) as lost:
            failures += 1
            told = isinstance(lost, Lost) and len(lost.args) > 1
            after = lost.args[1] if told else random.uniform(0.5, min(60, 2 ** min(failures, 6)))
            print("client.py: %s; back in %.1f s" % (lost.args, after), file=sys.stderr, flush=True)
            time.sleep(after)


def publish(args):
    message = {"topic": args.topic, "id": args.id or uuid.uuid4().hex, "payload": args.data}
    first = time.monotonic()

    def session(connection):
        connection.send({"type": "publish", "ref": 2, "messages": [message],
                         "repeat_age_ms": int((time.monotonic() - first) * 1000)})
        while True:
            for result in check(connection.receive()).get("results", []):
                check(result)
                return print(result["position"], "duplicate" if result.get("duplicate") else "stored")

    forever(args, session, list)


def subscribe(args):
    file, position, left = args.position_file, args.start, args.count
    cursors = {}  # by partition; nearly every stream has one
    if file and os.path.exists(file):
        position = Path(file).read_text().strip()

    def session(connection):
        nonlocal position, left
        while True:
            frame = check(connection.receive())
            partition = frame.get("partition", 0)
            if frame["type"] == "deliver" and frame.get("after", 0) > cursors[partition]:
                raise Lost("something was missed")  # the position fetches it
            for message in frame.get("messages", []):
                show(message)
                left -= 1
                if left == 0:  # an ephemeral one has no position, and one of several partitions is not enough
                    return save(file, message.get("position", position) if len(cursors) == 1 else position)
            if frame["type"] == "subscribed":
                cursors.clear()
                cursors.update((c.get("partition", 0), c.get("offset", 0)) for c in frame["cursors"])
            elif frame["type"] == "gap":
                print("client.py: some messages are gone:", frame, file=sys.stderr, flush=True)
                cursors[partition] = frame.get("offset", 0)
            elif frame.get("through", 0) > cursors.get(partition, 0):  # deliver or progress
                cursors[partition] = frame["through"]
            else:
                continue
            position = frame["position"]
            save(file, position)  # only now: its messages were handled

    forever(args, session, lambda: [{"sub": 1, "filter": args.filter, "from": position}])


def show(message):
    data = message["payload"].encode() if "payload" in message else base64.b64decode(message.get("payload_base64", ""))
    try:
        sys.stdout.buffer.write(data + b"\n")
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        os._exit(0)  # whoever read our output has seen enough


def save(file, position):
    """Replaces the file as a whole: a kill never leaves half a position."""
    if file:
        Path(file + ".tmp").write_text(position + "\n")
        os.replace(file + ".tmp", file)


def main():
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ^C ends it without a traceback
    parser = argparse.ArgumentParser(description="A small Tidewire client.")
    parser.add_argument("--url", default="ws://127.0.0.1:7070")
    commands = parser.add_subparsers(required=True, metavar="pub|sub")
    pub = commands.add_parser("pub", help="publish one message")
    pub.add_argument("topic")
    pub.add_argument("data")
    pub.add_argument("--id", help="a repeat with the same id is stored once")
    sub = commands.add_parser("sub", help="print what comes, a payload a line")
    sub.add_argument("filter")
    sub.add_argument("--from", dest="start", default="new", help="new, earliest, last:N, last-per-topic, -10m, a time, a position")
    sub.add_argument("--position-file", help="where to go on the next time")
    sub.add_argument("--count", type=int, default=0, help="end after so many messages")
    args = parser.parse_args()
    (publish if "data" in args else subscribe)(args)


if __name__ == "__main__":
    main()
