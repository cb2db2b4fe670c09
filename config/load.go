package config

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/goccy/go-yaml"
)

// A Source says where settings come from.
type Source struct {
	File        string        // path of a YAML file; empty for TIDEWIRE_CONFIG, or none
	Environment []string      // as os.Environ returns it
	Flags       func(*Config) // sets what was given on the command line; may be nil
}

// Load returns the settings in effect. Errors are one sentence.
func Load(s Source) (*Config, error) {
	c, err := read(s)
	if err != nil {
		return nil, err
	}
	if err := c.readSecrets(); err != nil {
		return nil, err
	}
	c.fillStreams()
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c.complete()
	return c, nil
}

// read takes the settings from their places, the last one winning.
func read(s Source) (*Config, error) {
	c := Default()
	file := s.File
	for _, v := range s.Environment {
		if name, ok := strings.CutPrefix(v, FileVariable+"="); ok && s.File == "" {
			file = name
		}
	}
	if file != "" {
		if err := c.readFile(file); err != nil {
			return nil, err
		}
	}
	if err := c.readEnvironment(s.Environment); err != nil {
		return nil, err
	}
	if s.Flags != nil {
		s.Flags(c)
	}
	return c, nil
}

// readSecrets fetches the secrets from their files.
func (c *Config) readSecrets() error {
	jwt, sasl := &c.Auth.JWT, &c.Kafka.SASL
	return errors.Join(
		readSecret("auth.jwt.secret", &jwt.Secret, jwt.SecretFile),
		readSecret("kafka.sasl.password", &sasl.Password, sasl.PasswordFile),
	)
}

// readSecret fetches the secret of a setting from the file that stands beside it,
// if one does.
func readSecret(path string, secret *Secret, file string) error {
	if file == "" {
		return nil
	}
	if *secret != "" {
		return fmt.Errorf("%s and %s_file are both set; keep one of them", path, path)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("%s_file: %s cannot be read: %w", path, file, cause(err))
	}
	text = bytes.TrimSuffix(text, []byte("\n"))
	text = bytes.TrimSuffix(text, []byte("\r"))
	if len(text) == 0 {
		return fmt.Errorf("%s_file: %s is empty; put the secret into it", path, file)
	}
	*secret = Secret(text)
	return nil
}

// complete fills in what follows from other settings.
func (c *Config) complete() {
	a := &c.Auth.Anonymous
	if !c.Auth.Configured() && !a.Said() {
		*a = Anonymous{Publish: []string{">"}, Subscribe: []string{">", "$dead.>"}, Consume: []string{">", "$dead.>"}}
	}
}

// YAML writes the settings as a configuration file, secrets as "(set)".
func (c *Config) YAML() ([]byte, error) {
	return yaml.MarshalWithOptions(c, yaml.IndentSequence(true))
}
