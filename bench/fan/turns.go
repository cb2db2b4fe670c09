package main

import "github.com/tidewire/tidewire/bench/rig"

// rounds is how often the sides of a row take turns. Memory is noisier.
const (
	rounds     = 5
	manyRounds = 9
)

// turns lets sides take so many turns, and returns what each one gave in each.
func turns(rounds int, sides ...func() (float64, error)) ([]rig.Sample, error) {
	all := make([]rig.Sample, len(sides))
	for turn := range rounds + 1 {
		for i, side := range sides {
			v, err := side()
			if err != nil {
				return nil, err
			}
			if turn > 0 { // the first one warms up
				all[i] = append(all[i], v)
			}
		}
	}
	return all, nil
}

func minus(a, b float64) float64 { return a - b }
