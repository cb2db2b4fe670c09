package sdk

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"time"
)

// packTime is the time of all files of a package, as npm writes it: the same
// files make the same bytes, whose hash stands in the lock files of users.
var packTime = time.Date(1985, time.October, 26, 8, 15, 0, 0, time.UTC)

// Pack makes the package that `npm install` takes: package.json, README.md,
// LICENSE and dist of files. Its version is that of the broker, as [Version] writes it.
func Pack(files fs.FS, broker string) ([]byte, error) {
	manifest, err := manifest(files, broker)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	zip, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	p := &packer{files: files, tar: tar.NewWriter(zip)}
	p.add("package.json", manifest)
	p.copy("README.md")
	p.copy("LICENSE")
	p.copyAll("dist")
	if p.err == nil {
		p.err = p.tar.Close()
	}
	if p.err == nil {
		p.err = zip.Close()
	}
	if p.err != nil {
		return nil, fmt.Errorf("pack the SDK: %w", p.err)
	}
	return out.Bytes(), nil
}

// packer writes an archive until its first error.
type packer struct {
	files fs.FS
	tar   *tar.Writer
	err   error
}

func (p *packer) add(name string, body []byte) {
	if p.err != nil {
		return
	}
	p.err = p.tar.WriteHeader(&tar.Header{Name: "package/" + name, Mode: 0o644, Size: int64(len(body)), ModTime: packTime, Format: tar.FormatUSTAR})
	if p.err == nil {
		_, p.err = p.tar.Write(body)
	}
}

func (p *packer) copy(name string) {
	body, err := fs.ReadFile(p.files, name)
	if err != nil && p.err == nil {
		p.err = err
	}
	p.add(name, body)
}

// copyAll adds the files of a directory, but for hidden ones, in their order.
func (p *packer) copyAll(dir string) {
	err := fs.WalkDir(p.files, dir, func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !strings.HasPrefix(d.Name(), ".") {
			p.copy(name)
		}
		return err
	})
	if err != nil && p.err == nil {
		p.err = err
	}
}

var versionField = regexp.MustCompile(`("version"\s*:\s*)"[^"]*"`)

// manifest returns package.json with the version of the package.
func manifest(files fs.FS, broker string) ([]byte, error) {
	text, err := fs.ReadFile(files, "package.json")
	if err != nil {
		return nil, fmt.Errorf("pack the SDK: %w", err)
	}
	var own struct{ Version string }
	if err := json.Unmarshal(text, &own); err != nil {
		return nil, fmt.Errorf("pack the SDK: package.json: %w", err)
	}
	at := versionField.FindSubmatchIndex(text)
	if at == nil {
		return nil, fmt.Errorf("pack the SDK: package.json has no version")
	}
	return slices.Concat(text[:at[3]], []byte(`"`+Version(broker, own.Version)+`"`), text[at[1]:]), nil
}

var (
	semver  = regexp.MustCompile(`^(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}(-` + part + `(\.` + part + `)*)?(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?$`)
	strange = regexp.MustCompile(`[^0-9A-Za-z-]+`)
)

const part = `(0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)` // of what stands behind the first '-'

// Version returns the version of the package that a broker serves: the broker's
// own, where npm can read it (v1.2.3 is 1.2.3), else that of package.json with
// the broker's behind it (0.1.0+devel).
func Version(broker, own string) string {
	if v := strings.TrimPrefix(broker, "v"); semver.MatchString(v) {
		return v
	}
	build := strings.Trim(strange.ReplaceAllString(broker, "-"), "-")
	if build == "" {
		return own
	}
	return own + "+" + build
}
