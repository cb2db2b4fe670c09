package kafka

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// consoleClasses are the classes of the console programs of Kafka, by the names
// of the scripts that start them.
var consoleClasses = map[string]string{
	"kafka-console-producer.sh": "org.apache.kafka.tools.ConsoleProducer",
	"kafka-console-consumer.sh": "org.apache.kafka.tools.consumer.ConsoleConsumer",
	"kafka-configs.sh":          "kafka.admin.ConfigCommand",
	"kafka-topics.sh":           "org.apache.kafka.tools.TopicCommand",
}

// Console writes Kafka's console programs into a directory, as scripts with the
// names that they have in Kafka's own distribution. The first on a machine fetches
// them, 1 MB.
func Console(ctx context.Context, dir string) error {
	d, err := Find(ctx)
	if err != nil {
		return err
	}
	tools, err := d.tools(ctx)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, class := range consoleClasses {
		script := fmt.Sprintf("#!/bin/sh\nexec '%s' -XX:TieredStopAtLevel=1 -Xshare:auto -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp '%s/*:%s/*' %s \"$@\"\n",
			d.java, tools, d.libs, class)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// tools returns the directory of what the console programs need besides.
func (d *Distribution) tools(ctx context.Context) (string, error) {
	base := filepath.Dir(d.libs)
	free, err := lock(filepath.Join(base, "lock"))
	if err != nil {
		return "", err
	}
	defer free()
	dir := filepath.Join(base, "tools")
	return dir, once(dir, func(dir string) error { return fetch(ctx, dir, toolsPom, "-DexcludeTransitive=true") })
}
