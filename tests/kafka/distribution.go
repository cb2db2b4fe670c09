package kafka

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Version is that of Apache Kafka.
const Version = "4.3.1"

// What Maven fetches, with what that depends on, and what the console programs need
// besides, without.
var (
	pom      = pomOf("kafka-for-tests", "org.apache.kafka:kafka_2.13:"+Version, "org.slf4j:slf4j-simple:1.7.36")
	toolsPom = pomOf("kafka-tools-for-tests", "org.apache.kafka:kafka-tools:"+Version)
)

// pomOf is a file for Maven that names what depends on artifacts, each a group, a name
// and a version.
func pomOf(name string, artifacts ...string) string {
	var b strings.Builder
	b.WriteString("<project xmlns=\"http://maven.apache.org/POM/4.0.0\">\n  <modelVersion>4.0.0</modelVersion>\n")
	b.WriteString("  <groupId>tidewire</groupId>\n  <artifactId>" + name + "</artifactId>\n  <version>1</version>\n  <packaging>pom</packaging>\n  <dependencies>\n")
	for _, a := range artifacts {
		part := strings.Split(a, ":")
		b.WriteString("    <dependency><groupId>" + part[0] + "</groupId><artifactId>" + part[1] + "</artifactId><version>" + part[2] + "</version></dependency>\n")
	}
	b.WriteString("  </dependencies>\n</project>\n")
	return b.String()
}

// copyGoal is of the plugin of Maven that fetches.
const copyGoal = "org.apache.maven.plugins:maven-dependency-plugin:2.8:copy-dependencies"

// UnavailableError says what this machine lacks to run Kafka, and what to do.
// Tests skip for it.
type UnavailableError struct{ Reason string }

func (e *UnavailableError) Error() string { return "Kafka cannot run here: " + e.Reason }

// Distribution is Kafka's program on this machine.
type Distribution struct {
	java    string // the executable
	libs    string // directory of the jars
	storage string // directory of a formatted, empty store, see storageTemplate
	archive string // of the classes that a node loads, see archiveClasses; "" if there is none
}

// cacheDir is where the distribution is kept.
func cacheDir() (string, error) {
	base := os.Getenv("TIDEWIRE_CACHE")
	if base == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("find the cache of this user (TIDEWIRE_CACHE can name another): %w", err)
		}
		base = filepath.Join(user, "tidewire")
	}
	return filepath.Abs(filepath.Join(base, "kafka-"+Version))
}

// Find returns the distribution, which it fetches if the cache has none. What
// the machine lacks is an UnavailableError.
func Find(ctx context.Context) (*Distribution, error) {
	java, err := exec.LookPath("java")
	if err != nil {
		return nil, &UnavailableError{"there is no java; install Java 17 or newer (on Debian: apt-get install openjdk-17-jre-headless)"}
	}
	dir, err := cacheDir()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the cache of Kafka (TIDEWIRE_CACHE can name another): %w", err)
	}
	free, err := lock(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, err
	}
	defer free()
	d := &Distribution{java: java, libs: filepath.Join(dir, "libs"), storage: filepath.Join(dir, "storage")}
	if err := once(d.libs, func(dir string) error { return fetch(ctx, dir, pom) }); err != nil {
		return nil, err
	}
	if err := once(d.storage, func(dir string) error { return d.storageTemplate(ctx, dir) }); err != nil {
		return nil, err
	}
	d.archiveClasses(ctx, dir)
	return d, nil
}

// lock waits until no other process has it.
func lock(path string) (free func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the lock of the cache: %w", err)
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock the cache of Kafka: %w", err)
	}
	return func() { _ = f.Close() }, nil
}

// once makes a directory whole or not at all: what fills it works on another
// name. One that is there is left alone.
func once(dir string, fill func(dir string) error) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	work, err := os.MkdirTemp(filepath.Dir(dir), "new-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }() // gone already if all went well
	if err := os.Chmod(work, 0o755); err != nil {
		return err
	}
	if err := fill(work); err != nil {
		return err
	}
	return os.Rename(work, dir)
}

// fetch fills dir with the jars that a pom names.
func fetch(ctx context.Context, dir, pom string, flags ...string) error {
	mvn, err := exec.LookPath("mvn")
	if err != nil {
		return &UnavailableError{"there is no mvn to fetch it with; install Maven (on Debian: apt-get install maven)"}
	}
	file := filepath.Join(dir, "pom.xml")
	if err := os.WriteFile(file, []byte(pom), 0o644); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, mvn, append([]string{"-B", "-q", "-f", file, copyGoal, "-DoutputDirectory=" + dir}, flags...)...)
	cmd.WaitDelay = time.Second // for what it has started
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return fmt.Errorf("fetch Kafka from Maven Central: %w", context.Cause(ctx))
	}
	if err != nil {
		return &UnavailableError{fmt.Sprintf("Maven could not fetch it (%v, %s); go online once, or set TIDEWIRE_CACHE to a directory that has it", err, complaint(out))}
	}
	return nil
}

// complaint is the first line of Maven's output that says what went wrong.
func complaint(out []byte) string {
	for line := range strings.Lines(string(out)) {
		if _, text, ok := strings.Cut(line, "[ERROR] "); ok {
			return strings.TrimSpace(text)
		}
	}
	return "and it did not say why"
}

// storageTemplate fills dir with what Kafka's format command leaves in the store
// of a node. The name of the node stands in one file of it, which each node gets
// written anew; so the command runs once, and not at each start.
func (d *Distribution) storageTemplate(ctx context.Context, dir string) error {
	work, err := os.MkdirTemp("", "tidewire-kafka-format-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	l := layout{nodes: []ports{{client: 1, controller: 2}}, dir: work}
	file := filepath.Join(work, "server.properties")
	props := l.properties(1)
	props["log.dirs"] = dir
	if err := props.write(file); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, d.java, append(d.flags(), "kafka.tools.StorageTool", "format", "-t", randomID(), "-c", file)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("format the store of a Kafka node: %w\n%s", err, tail(out, 20))
	}
	return nil
}

// archiveClasses sees to an archive of the loaded classes, which halves the time
// that a node needs to start. It belongs to one version of Java. Without it all
// works too, so that a failure is none.
func (d *Distribution) archiveClasses(ctx context.Context, dir string) {
	version, err := exec.CommandContext(ctx, d.java, "-version").CombinedOutput()
	if err != nil {
		return
	}
	sum := sha256.Sum256(version)
	file := filepath.Join(dir, fmt.Sprintf("classes-%x.jsa", sum[:8]))
	if _, err := os.Stat(file); err != nil {
		work := file + ".new"
		defer func() { _ = os.Remove(work) }()
		if d.train(ctx, work) != nil || os.Rename(work, file) != nil {
			return
		}
	}
	d.archive = file
}

// train runs a node whose Java writes the archive when it ends.
func (d *Distribution) train(ctx context.Context, archive string) error {
	c, err := d.start(ctx, Options{}, "-XX:ArchiveClassesAtExit="+archive)
	if err != nil {
		return err
	}
	c.Node(1).Terminate()
	return c.Close()
}

// flags are those of Java, up to the name of the program.
func (d *Distribution) flags() []string {
	jars, _ := filepath.Glob(filepath.Join(d.libs, "*.jar")) // the pattern is well-formed
	slices.Sort(jars)
	flags := []string{
		"-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Xlog:disable",
		"-Dorg.slf4j.simpleLogger.showDateTime=true", "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
		"-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config.AbstractConfig=warn", // hundreds of lines
		"-cp", strings.Join(jars, string(os.PathListSeparator)),
	}
	if d.archive != "" {
		flags = append([]string{"-XX:SharedArchiveFile=" + d.archive}, flags...)
	}
	return flags
}

// tail returns the last lines of a text.
func tail(text []byte, lines int) string {
	all := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return string(bytes.Join(all[max(0, len(all)-lines):], []byte("\n")))
}
