package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tidewire/tidewire/protocol"
)

// positions is the file of --position-file: where each filter is.
type positions struct {
	file  string // where it is, behind symbolic links; empty for none
	saved map[string]string
}

// positionsFile is its form.
type positionsFile struct {
	Positions map[string]string `json:"positions"`
}

// openPositions reads the file if it exists. It must be of the same filters: a
// file of others, replaced, would lose their positions in silence.
func openPositions(file string, filters []string) (*positions, error) {
	p := &positions{}
	if file == "" {
		return p, nil
	}
	var err error
	if p.file, err = behindLinks(file); err != nil {
		return nil, fmt.Errorf("the position file cannot be found: %w", err)
	}
	b, err := os.ReadFile(p.file)
	if errors.Is(err, fs.ErrNotExist) {
		return p, checkDirectory(p.file)
	}
	if err != nil {
		return nil, fmt.Errorf("the position file cannot be read: %w", err)
	}
	var form positionsFile
	if err := json.Unmarshal(b, &form); err != nil || len(form.Positions) == 0 {
		return nil, fmt.Errorf("%s is not a position file; give another name, or remove it to begin at --from", file)
	}
	for filter, position := range form.Positions {
		if _, err := protocol.ParseVector(position); err != nil {
			return nil, fmt.Errorf("%s holds no valid position for %q; remove it to begin at --from", file, filter)
		}
	}
	have, want := slices.Sorted(maps.Keys(form.Positions)), slices.Sorted(slices.Values(filters))
	if !slices.Equal(have, want) {
		return nil, fmt.Errorf("the position file %s is for %s, but the filters given are %s; give those, or another file", file, strings.Join(have, " "), strings.Join(want, " "))
	}
	p.saved = form.Positions
	return p, checkDirectory(p.file)
}

// maxLinks is how many symbolic links are followed, as Linux does.
const maxLinks = 40

// behindLinks returns the file that a chain of symbolic links leads to, which
// need not exist yet. It is replaced there: a rename over the link itself would
// leave whoever looks at its target with an old position for ever.
func behindLinks(file string) (string, error) {
	for range maxLinks {
		info, err := os.Lstat(file)
		if errors.Is(err, fs.ErrNotExist) || (err == nil && info.Mode()&fs.ModeSymlink == 0) {
			return file, nil
		}
		if err != nil {
			return "", err
		}
		to, err := os.Readlink(file)
		if err != nil {
			return "", err
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(file), to)
		}
		file = to
	}
	return "", fmt.Errorf("%s: too many symbolic links", file)
}

// checkDirectory finds out before anything is printed whether the file can be
// replaced.
func checkDirectory(file string) error {
	temp, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*.tmp")
	if err != nil {
		return fmt.Errorf("the position file cannot be written, since a new one cannot be made beside it: %w", err)
	}
	_ = temp.Close()
	return os.Remove(temp.Name())
}

// of returns the position of a filter; empty if there is none.
func (p *positions) of(filter string) string { return p.saved[filter] }

// save replaces the file, if anything has changed.
func (p *positions) save(now map[string]string) error {
	if p.file == "" || now == nil || maps.Equal(now, p.saved) {
		return nil
	}
	b, err := jsonLine(positionsFile{now})
	if err != nil {
		return err
	}
	if err := replaceFile(p.file, b); err != nil {
		return fmt.Errorf("the position file cannot be written: %w", err)
	}
	p.saved = now
	return nil
}

// replaceFile writes a file so that it holds either the old or the new content,
// also after a power cut. Its mode stays.
func replaceFile(name string, content []byte) error {
	temp, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*.tmp")
	if err != nil {
		return err
	}
	if info, found := os.Stat(name); found == nil {
		_ = temp.Chmod(info.Mode().Perm())
	}
	_, err = temp.Write(content)
	if err == nil {
		err = temp.Sync()
	}
	if closing := temp.Close(); err == nil {
		err = closing
	}
	if err == nil {
		err = os.Rename(temp.Name(), name)
	}
	if err != nil {
		_ = os.Remove(temp.Name())
	}
	return err
}
