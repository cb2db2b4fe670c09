package config_test

import (
	"os"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/tidewire/tidewire/config"
)

// TestCompose reads deploy/compose.yaml: each broker of it would take its settings, and
// is a node of its own.
func TestCompose(t *testing.T) {
	text, err := os.ReadFile("../deploy/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Services map[string]struct {
			Environment map[string]string `yaml:"environment"`
			Image       string            `yaml:"image"`
		} `yaml:"services"`
	}
	// The explicit keys behind a merge replace what it brought.
	if err := yaml.UnmarshalWithOptions(text, &file, yaml.AllowDuplicateMapKey()); err != nil {
		t.Fatal(err)
	}
	nodes := map[string]bool{}
	for name, s := range file.Services {
		if s.Image == "apache/kafka:4.3.1" {
			if s.Environment["KAFKA_NODE_ID"] == "" || s.Environment["KAFKA_BROKER_SESSION_TIMEOUT_MS"] != "3000" {
				t.Errorf("%s has the settings %v", name, s.Environment)
			}
		}
		if s.Image != "tidewire" {
			continue
		}
		// What the image sets besides.
		environment := []string{"TIDEWIRE_DATA=/data", "TIDEWIRE_LISTEN=0.0.0.0:7070", "TIDEWIRE_ADMIN=127.0.0.1:7071"}
		for k, v := range s.Environment {
			environment = append(environment, k+"="+v)
		}
		c, err := config.Load(config.Source{Environment: environment})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(c.Kafka.Brokers) != 3 || c.Kafka.Replication != 3 {
			t.Errorf("%s: %+v", name, c.Kafka)
		}
		if strings.HasPrefix(name, "tidewire-") && (nodes[c.Kafka.Node] || c.Kafka.Node == "") {
			t.Errorf("%s has the name %q", name, c.Kafka.Node)
		}
		nodes[c.Kafka.Node] = true
	}
	if len(nodes) != 4 { // init has none
		t.Errorf("%d nodes", len(nodes))
	}
}
