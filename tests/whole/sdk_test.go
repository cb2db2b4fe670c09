package whole_test

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestNpmInstallsFromTheBroker: what a broker serves at /sdk/client.tgz is a
// package for npm, without dependencies, and Node.js can import it.
func TestNpmInstallsFromTheBroker(t *testing.T) {
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	b := newBroker(t)
	b.start()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "package.json"), []byte(`{"name":"app","private":true,"type":"module"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(name string, args ...string) string {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir = dir
		// Nobody but the broker is asked for anything.
		cmd.Env = append(cleanEnv(), "npm_config_cache="+t.TempDir(), "npm_config_registry=http://127.0.0.1:9/", "npm_config_audit=false", "npm_config_fund=false", "npm_config_update_notifier=false", "npm_config_fetch_retries=0")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %q: %v\n%s", name, args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	run("npm", "install", "http://"+b.listen+"/sdk/client.tgz")

	var got struct{ Name, Version string }
	text, err := os.ReadFile(filepath.Join(dir, "node_modules/@tidewire/client/package.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	var broker struct{ Version string }
	out, err := exec.Command(binary, "version", "--json").Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out, &broker); err != nil {
		t.Fatal(err)
	}
	if want := strings.TrimPrefix(broker.Version, "v"); got.Name != "@tidewire/client" || (got.Version != want && !strings.HasSuffix(got.Version, "+"+want)) {
		t.Errorf("installed %+v from a broker of version %s", got, broker.Version)
	}
	if said := run("node", "-e", `import("@tidewire/client").then((m) => console.log(typeof m.connect, typeof m.TidewireError))`); said != "function function" {
		t.Errorf("Node.js finds %q in it", said)
	}
}

// Pages of any origin, and pages that lie on a disk, import the modules.
func TestTheBrokerServesTheModules(t *testing.T) {
	b := newBroker(t)
	b.start()
	for _, name := range []string{"client.js", "idb.js", "tabs.js"} {
		request, err := http.NewRequest("GET", "http://"+b.listen+"/sdk/"+name, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Origin", "null")
		answer, err := probe.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		h := answer.Header
		if answer.StatusCode != http.StatusOK || h.Get("Content-Type") != "text/javascript; charset=utf-8" || h.Get("Access-Control-Allow-Origin") != "*" || !strings.Contains(string(text), "export") {
			t.Errorf("%s: %d %v", name, answer.StatusCode, h)
		}
	}
}
