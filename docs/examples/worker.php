<?php
// A Tidewire worker in PHP, over HTTP alone, with nothing but the standard library.
// Not tested by this project, unlike worker.py, which does the same.
//
//   php worker.php billing 'orders.>'
//
// Put your work into handle(). Start as many as you like: they share the messages.

declare(strict_types=1);

class Rejected extends Exception {} // no attempt will ever succeed

// Returning acknowledges the message. Rejected makes a dead letter of it at once, any
// other exception gives it back: it comes again, to any worker, after a pause.
function handle(array $message): void
{
    $payload = $message['payload'] ?? base64_decode($message['payload_base64'] ?? '');
    if ($payload === '') {
        throw new Rejected('the message is empty');
    }
    echo "{$message['topic']} {$message['id']}, attempt {$message['attempt']}: $payload\n";
}

// Posts until there is an answer. What will not change by waiting ends the program.
function call(string $url, ?array $body = null): array
{
    $headers = "Content-Type: application/json\r\n";
    if ($token = getenv('TIDEWIRE_TOKEN')) {
        $headers .= "Authorization: Bearer $token\r\n";
    }
    $context = stream_context_create(['http' => [
        'method' => 'POST', 'header' => $headers, 'timeout' => 60, 'ignore_errors' => true,
        'content' => $body === null ? '' : json_encode($body, JSON_THROW_ON_ERROR | JSON_UNESCAPED_UNICODE),
    ]]);
    for ($failures = 1; ; $failures++) {
        $http_response_header = [];
        $text = @file_get_contents($url, false, $context);
        preg_match('{^HTTP/\S+ (\d+)}', $http_response_header[0] ?? '', $match);
        $status = (int) ($match[1] ?? 0);
        $answer = $status === 200 ? json_decode((string) $text, true) : null;
        if (is_array($answer)) {
            return $answer;
        }
        if ($status >= 400 && $status < 500 && $status !== 408 && $status !== 429) {
            fwrite(STDERR, "status $status: $text\n");
            exit(1);
        }
        usleep(random_int(100_000, 250_000 * min(120, 2 ** min($failures, 7))));
    }
}

[, $consumer, $filter] = $argv + [1 => 'billing', 2 => 'orders.>'];
$base = (getenv('TIDEWIRE_SERVER') ?: 'http://127.0.0.1:7070') . '/v1/consumers/' . rawurlencode($consumer);
$query = http_build_query(['max' => 1, 'wait' => '30s', 'filter' => $filter, 'from' => 'earliest']);
while (true) {
    $answer = call("$base/fetch?$query");
    foreach ($answer['messages'] as $message) {
        $position = $message['position'];
        try {
            handle($message);
            $outcome = ['ack' => [$position]];
        } catch (Rejected $e) {
            $outcome = ['reject' => [['position' => $position, 'reason' => $e->getMessage()]]];
        } catch (Throwable $e) {
            fwrite(STDERR, "{$message['id']}: {$e->getMessage()}\n");
            $outcome = ['nack' => [$position]];
        }
        // Sent again if the answer was lost, it does no harm: it is refused as not_pending.
        call("$base/ack", $outcome + ['generation' => $answer['generation']]);
    }
}
