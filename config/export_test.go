package config

// ParseForTest reads the text of a file as [Load] does.
func ParseForTest(text []byte) (*Config, error) {
	c := Default()
	return c, c.parse("tidewire.yaml", text)
}
