package sdk

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"slices"
	"testing"
	"testing/fstest"
)

// unpack reads an archive; its files must all be older than this century.
func unpack(t *testing.T, archive []byte) map[string]string {
	t.Helper()
	zip, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for r := tar.NewReader(zip); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if h.ModTime.Year() != 1985 || h.Mode != 0o644 {
			t.Errorf("%s: %v, mode %o", h.Name, h.ModTime, h.Mode)
		}
		files[h.Name] = string(body)
	}
}

func TestPack(t *testing.T) {
	files := fstest.MapFS{
		"package.json":       {Data: []byte(`{ "name": "x", "version": "0.1.0", "engines": {"version": "7"} }`)},
		"README.md":          {Data: []byte("# x\n")},
		"LICENSE":            {Data: []byte("Do as you like.\n")},
		"dist/index.js":      {Data: []byte("export {};\n")},
		"dist/idb/index.js":  {Data: []byte("export {};\n")},
		"dist/.gitkeep":      {Data: nil},
		"served/client.js":   {Data: []byte("not for npm")},
		"src/index.ts":       {Data: []byte("not for npm")},
		"node_modules/x/a.c": {Data: []byte("not for npm")},
	}
	archive, err := Pack(files, "v1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	got := unpack(t, archive)
	if names := slices.Sorted(maps.Keys(got)); !slices.Equal(names, []string{"package/LICENSE", "package/README.md", "package/dist/idb/index.js", "package/dist/index.js", "package/package.json"}) {
		t.Errorf("it has %q", names)
	}
	if want := `{ "name": "x", "version": "1.2.3", "engines": {"version": "7"} }`; got["package/package.json"] != want {
		t.Errorf("package.json: %s", got["package/package.json"])
	}
	if again, err := Pack(files, "v1.2.3"); err != nil || !bytes.Equal(again, archive) {
		t.Errorf("the same files make other bytes, error %v", err)
	}
	for _, name := range []string{"package.json", "README.md", "LICENSE"} {
		without := maps.Clone(files)
		delete(without, name)
		if _, err := Pack(without, "v1.2.3"); err == nil {
			t.Errorf("packed without %s", name)
		}
	}
	for _, text := range []string{"{", `{"name":"x"}`} {
		files["package.json"] = &fstest.MapFile{Data: []byte(text)}
		if _, err := Pack(files, "v1.2.3"); err == nil {
			t.Errorf("packed with the package.json %s", text)
		}
	}
}

func TestPackTheSDK(t *testing.T) {
	archive, err := Pack(Files, "devel")
	if err != nil {
		t.Fatal(err)
	}
	unpacked := unpack(t, archive)
	license, err := os.ReadFile("../../LICENSE")
	if err != nil {
		t.Fatal(err)
	}
	if unpacked["package/LICENSE"] != string(license) {
		t.Error("its LICENSE is not that of the project: copy that")
	}
	var got struct{ Name, Version string }
	if err := json.Unmarshal([]byte(unpacked["package/package.json"]), &got); err != nil {
		t.Fatal(err)
	}
	text, err := Files.ReadFile("package.json")
	if err != nil {
		t.Fatal(err)
	}
	var own struct{ Version string }
	if err := json.Unmarshal(text, &own); err != nil {
		t.Fatal(err)
	}
	if got.Name != "@tidewire/client" || got.Version != own.Version+"+devel" {
		t.Errorf("it is %+v", got)
	}
}

func TestVersion(t *testing.T) {
	for broker, want := range map[string]string{
		"v1.2.3":               "1.2.3",
		"1.2.3":                "1.2.3",
		"v1.2.3-rc.1":          "1.2.3-rc.1",
		"v1.2.3-5-g0123abc":    "1.2.3-5-g0123abc",
		"v1.2.3+dirty":         "1.2.3+dirty",
		"8ca5ed9":              "0.1.0+8ca5ed9",
		"8ca5ed9-dirty":        "0.1.0+8ca5ed9-dirty",
		"devel":                "0.1.0+devel",
		"v1.2":                 "0.1.0+v1-2",
		"v01.2.3":              "0.1.0+v01-2-3",
		"v1.2.3-01":            "0.1.0+v1-2-3-01",
		"a b/c\"":              "0.1.0+a-b-c",
		"":                     "0.1.0",
		"v1.2.3-0.20261121070": "1.2.3-0.20261121070",
	} {
		if got := Version(broker, "0.1.0"); got != want {
			t.Errorf("%q: %s, want %s", broker, got, want)
		}
	}
}
