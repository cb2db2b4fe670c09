package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/tidewire/tidewire/broker/bridge/kafka"
	"github.com/tidewire/tidewire/config"
)

// kafkaOptions says how to speak with the Kafka of the configuration.
func kafkaOptions(c *config.Kafka, logger *slog.Logger) (kafka.Options, error) {
	o := kafka.Options{Brokers: c.Brokers, ClientID: "tidewire-" + nodeName(c), Logger: logger}
	if c.SASL.Mechanism != "" {
		// The library's names are those of the protocol, in capitals.
		o.SASL = kafka.SASL{Mechanism: strings.ToUpper(c.SASL.Mechanism), User: c.SASL.User, Password: c.SASL.Password.Reveal()}
	}
	if !c.TLS.Enabled {
		return o, nil
	}
	o.TLS = &tls.Config{ServerName: c.TLS.ServerName, MinVersion: tls.VersionTLS12}
	if c.TLS.CAFile != "" {
		pem, err := os.ReadFile(c.TLS.CAFile)
		if err != nil {
			return o, fmt.Errorf("kafka.tls.ca_file: %w", err)
		}
		o.TLS.RootCAs = x509.NewCertPool()
		if !o.TLS.RootCAs.AppendCertsFromPEM(pem) {
			return o, fmt.Errorf("kafka.tls.ca_file: %s holds no certificate; write the PEM file of who signed Kafka's", c.TLS.CAFile)
		}
	}
	if c.TLS.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(c.TLS.CertFile, c.TLS.KeyFile)
		if err != nil {
			return o, fmt.Errorf("kafka.tls.cert_file and kafka.tls.key_file: %w; write the PEM files of a certificate and of its key", err)
		}
		o.TLS.Certificates = []tls.Certificate{pair}
	}
	return o, nil
}

// nodeName is what people call this node.
func nodeName(c *config.Kafka) string {
	if c.Node != "" {
		return c.Node
	}
	if name, err := os.Hostname(); err == nil && name != "" {
		return name
	}
	return "tidewire"
}
