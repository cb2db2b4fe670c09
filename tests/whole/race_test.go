//go:build race

package whole_test

func init() { raceEnabled = true }
