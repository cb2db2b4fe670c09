package kafka

import (
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"
)

// Mechanisms of SASL.
const (
	Plain       = "PLAIN"
	ScramSHA256 = "SCRAM-SHA-256"
	ScramSHA512 = "SCRAM-SHA-512"
)

// SASL says who we are. Without a Mechanism nothing is said.
type SASL struct {
	Mechanism string // Plain, ScramSHA256 or ScramSHA512
	User      string
	Password  string
}

func (s SASL) mechanism() (sasl.Mechanism, error) {
	switch s.Mechanism {
	case "":
		if s.User != "" || s.Password != "" {
			return nil, failf(Invalid, nil, "a user or password for Kafka is given without a SASL mechanism; give %s, %s or %s", Plain, ScramSHA256, ScramSHA512)
		}
		return nil, nil
	case Plain:
		if s.User == "" {
			break
		}
		return plain.Mechanism{Username: s.User, Password: s.Password}, nil
	case ScramSHA256, ScramSHA512:
		if s.User == "" {
			break
		}
		algorithm := scram.SHA256
		if s.Mechanism == ScramSHA512 {
			algorithm = scram.SHA512
		}
		m, err := scram.Mechanism(algorithm, s.User, s.Password)
		if err != nil {
			return nil, failf(Invalid, err, "user or password for Kafka have characters that SASL does not allow")
		}
		return m, nil
	default:
		return nil, failf(Invalid, nil, "%q is not a SASL mechanism that is known here; give %s, %s or %s", s.Mechanism, Plain, ScramSHA256, ScramSHA512)
	}
	return nil, failf(Invalid, nil, "the SASL mechanism %s needs a user", s.Mechanism)
}
