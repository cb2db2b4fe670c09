#!/usr/bin/env python3
"""A Tidewire worker in Python's standard library, over HTTP alone.

  worker.py billing 'orders.>' -- ./charge

It runs the command for each message of the consumer `billing`, with the payload on
standard input. Status 0: done. 65: hopeless, a dead letter. Anything else: again
later. Start as many as you like, on as many machines: they share the messages.
"""
import argparse, base64, json, os, random, signal, subprocess, sys, time
import urllib.error, urllib.parse, urllib.request


def call(args, path, query="", body=None):
    """Posts until there is an answer; a problem that will not go away ends the program."""
    failures, headers = 0, {"Content-Type": "application/json"}
    if args.token:
        headers["Authorization"] = "Bearer " + args.token
    url = "%s/v1/consumers/%s/%s?%s" % (args.url.rstrip("/"), args.consumer, path, query)
    while True:
        data = b"" if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, headers, method="POST")
        wait = 0
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            text = error.read().decode()
            if error.code < 500 and error.code not in (408, 429):
                sys.exit("worker.py: status %d: %s" % (error.code, text))
            wait = int(error.headers.get("Retry-After", "0"))
        except (OSError, ValueError) as error:  # no connection, or one that broke off
            text = str(error)
        failures += 1
        wait = max(wait, random.uniform(0.1, min(30, 2 ** min(failures, 5)) / 4))
        print("worker.py: %s; again in %.1f s" % (text, wait), file=sys.stderr, flush=True)
        time.sleep(wait)


def work(args, message):
    """Runs the command, and returns under which heading its outcome is told."""
    payload = message["payload"].encode() if "payload" in message else base64.b64decode(message["payload_base64"])
    env = dict(os.environ, TIDEWIRE_MSG_ID=message["id"], TIDEWIRE_MSG_TOPIC=message["topic"],
               TIDEWIRE_MSG_ATTEMPT=str(message["attempt"]))
    done = subprocess.run(args.command, input=payload, stderr=subprocess.PIPE, env=env)
    sys.stderr.buffer.write(done.stderr)
    reason = (done.stderr.decode(errors="replace").strip().splitlines() or ["exit status 65"])[-1]
    if done.returncode == 0:
        return {"ack": [message["position"]]}
    if done.returncode == 65:
        return {"reject": [{"position": message["position"], "reason": "".join(filter(str.isprintable, reason))[:200]}]}
    return {"nack": [message["position"]]}


def main():
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # what is not settled comes again, to anybody
    parser = argparse.ArgumentParser(description="Run a command for each message of a consumer.")
    parser.add_argument("--url", default="http://127.0.0.1:7070")
    parser.add_argument("--token", default=os.environ.get("TIDEWIRE_TOKEN"))
    parser.add_argument("consumer")
    parser.add_argument("filter", help="what the consumer is for, if it does not exist yet")
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()
    query = urllib.parse.urlencode({"max": 1, "wait": "30s", "filter": args.filter, "from": "earliest"})
    while True:
        answer = call(args, "fetch", query)
        for message in answer["messages"]:
            # A repeat, because the answer was lost, does no harm: it is refused with not_pending.
            call(args, "ack", body=dict(work(args, message), generation=answer["generation"]))


if __name__ == "__main__":
    main()
