package supervisor

// A Report is what a broker tells its supervisor.
type Report struct {
	Listen   string `json:"listen,omitempty"` // addresses, once it takes requests
	Admin    string `json:"admin,omitempty"`
	Audience *int   `json:"audience,omitempty"` // how many listen to the topic of the demo now
}
