// A Tidewire worker in Java (17 or later), over HTTP alone, with nothing but the standard
// library. Not tested by this project, unlike worker.py, which does the same.
//
//   java Worker.java billing 'orders.>'
//
// Put your work into handle(). Start as many as you like: they share the messages. The
// standard library has no JSON: with one of your own at hand, use it in place of find().

import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.concurrent.ThreadLocalRandom;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

public class Worker {
    // Returning acknowledges the message; an exception gives it back: it comes again, to
    // any worker, after a pause. The message is one JSON object, with id, topic, position,
    // attempt, and payload or payload_base64.
    static void handle(String message) throws Exception {
        System.out.println(message);
    }

    static final HttpClient client = HttpClient.newHttpClient();

    // Posts until there is an answer. What will not change by waiting ends the program.
    static String call(String url, String body) throws InterruptedException {
        var request = HttpRequest.newBuilder(URI.create(url)).timeout(Duration.ofSeconds(60))
            .header("Content-Type", "application/json").POST(HttpRequest.BodyPublishers.ofString(body));
        String token = System.getenv("TIDEWIRE_TOKEN");
        if (token != null) request.header("Authorization", "Bearer " + token);
        for (int failures = 1; ; failures++) {
            try {
                var answer = client.send(request.build(), HttpResponse.BodyHandlers.ofString());
                int status = answer.statusCode();
                if (status == 200) return answer.body();
                if (status >= 400 && status < 500 && status != 408 && status != 429) {
                    System.err.println("status " + status + ": " + answer.body());
                    System.exit(1);
                }
            } catch (java.io.IOException lost) {
                System.err.println(lost);
            }
            Thread.sleep(ThreadLocalRandom.current().nextLong(100, 250L << Math.min(failures, 7)));
        }
    }

    // With max=1 there is one message. Its position has nothing to escape in it and comes
    // before all texts that are not its own; a generation is a number, and no text is. A
    // quote within a text is escaped, so that no payload looks like either.
    static final Pattern POSITION = Pattern.compile("\"position\":\"([A-Za-z0-9_-]+)\"");
    static final Pattern GENERATION = Pattern.compile("\"generation\":(\\d+)");

    static String find(Pattern pattern, String json) {
        Matcher m = pattern.matcher(json);
        return m.find() ? m.group(1) : null;
    }

    public static void main(String[] args) throws Exception {
        String server = System.getenv().getOrDefault("TIDEWIRE_SERVER", "http://127.0.0.1:7070");
        String base = server + "/v1/consumers/" + args[0];
        String filter = URLEncoder.encode(args[1], StandardCharsets.UTF_8);
        while (true) {
            String answer = call(base + "/fetch?max=1&wait=30s&from=earliest&filter=" + filter, "");
            String position = find(POSITION, answer), generation = find(GENERATION, answer);
            if (position == null) continue; // nothing came within the wait
            String outcome = "ack";
            try {
                handle(answer.substring(answer.indexOf("[{") + 1, answer.lastIndexOf("}]") + 1));
            } catch (Exception failed) {
                System.err.println(failed);
                outcome = "nack"; // or "reject":[{"position":..,"reason":..}] if it is hopeless
            }
            // Sent again if the answer was lost, it does no harm: it is refused as not_pending.
            call(base + "/ack", "{\"generation\":" + generation + ",\"" + outcome + "\":[\"" + position + "\"]}");
        }
    }
}
