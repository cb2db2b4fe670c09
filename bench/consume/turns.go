package main

import "github.com/tidewire/tidewire/bench/rig"

// A side is measured once by a call, and gives one or more figures.
type side = func() ([]float64, error)

// turns lets sides take so many turns after one that warms up, and returns a
// sample of each figure of each side.
func turns(rounds int, sides ...side) ([][]rig.Sample, error) {
	if _, err := series(1, sides...); err != nil {
		return nil, err
	}
	return series(rounds, sides...)
}

// series does without that: for what begins with fresh servers and shows no
// times.
func series(rounds int, sides ...side) ([][]rig.Sample, error) {
	all := make([][]rig.Sample, len(sides))
	for range rounds {
		for i, side := range sides {
			values, err := side()
			if err != nil {
				return nil, err
			}
			all[i] = append(all[i], make([]rig.Sample, len(values)-len(all[i]))...)
			for j, v := range values {
				all[i][j] = append(all[i][j], v)
			}
		}
	}
	return all, nil
}
