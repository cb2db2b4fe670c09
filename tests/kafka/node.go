package kafka

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// goodbyeLimit is longer than any node took that had whom to say it to.
const goodbyeLimit = 10 * time.Second

// Node is one node of a cluster: broker and controller in one process.
type Node struct {
	cluster *Cluster
	id      int

	mu     sync.Mutex    // guards what follows
	cmd    *exec.Cmd     // nil while it does not run
	exited chan struct{} // closed when cmd has ended
}

// ID is the number by which Kafka knows the node, from 1 on.
func (n *Node) ID() int { return n.id }

// Address is where the node takes clients without TLS and SASL.
func (n *Node) Address() string { return address(n.cluster.layout.nodes[n.id-1].client) }

// Running reports whether there is a process, stopped or not.
func (n *Node) Running() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cmd != nil
}

// Kill is kill -9; it returns when nothing is left of the process. A node that
// does not run stays so.
func (n *Node) Kill() {
	if exited := n.signal(syscall.SIGKILL); exited != nil {
		<-exited
	}
}

// Terminate lets the node say goodbye to the others, and returns when it is gone.
// One that finds no majority to say it to is killed in the end.
func (n *Node) Terminate() {
	exited := n.signal(syscall.SIGTERM)
	if exited == nil {
		return
	}
	timer := time.NewTimer(goodbyeLimit)
	defer timer.Stop()
	select {
	case <-exited:
	case <-timer.C:
		n.Kill()
	}
}

// Stop freezes the node (SIGSTOP): its connections stay and nothing answers.
func (n *Node) Stop() { n.signal(syscall.SIGSTOP) }

// Continue wakes it again (SIGCONT).
func (n *Node) Continue() { n.signal(syscall.SIGCONT) }

func (n *Node) signal(s syscall.Signal) (exited chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd == nil {
		return nil
	}
	_ = n.cmd.Process.Signal(s) // an error means that it has just ended
	return n.exited
}

// Launch starts the node and returns at once. A node that runs is left alone.
func (n *Node) Launch() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd != nil {
		return nil
	}
	log, err := os.OpenFile(n.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // the node has its own
	c := n.cluster
	cmd := exec.Command(c.dist.java, append(append(c.dist.flags(), c.javaFlags...), "kafka.Kafka", n.propertiesFile())...)
	cmd.Dir = c.layout.nodeDir(n.id)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for whoever started the cluster
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start node %d of Kafka: %w", n.id, err)
	}
	exited := make(chan struct{})
	n.cmd, n.exited = cmd, exited
	c.guard.add(cmd.Process.Pid)
	go func() {
		_ = cmd.Wait() // who asks reads the log
		c.guard.remove(cmd.Process.Pid)
		n.mu.Lock()
		n.cmd = nil
		n.mu.Unlock()
		close(exited)
	}()
	return nil
}

// Restart ends the node as kill -9 does, if it runs, starts it again and returns
// when it leads or follows all of its partitions as before. That needs a majority
// of the nodes; Cluster.Restart starts several.
func (n *Node) Restart(ctx context.Context) error {
	n.Kill()
	if err := n.Launch(); err != nil {
		return err
	}
	return n.cluster.await(ctx, n)
}

// Log is the end of what the node has written in all its lives.
func (n *Node) Log() string {
	text, err := os.ReadFile(n.logFile())
	if err != nil {
		return err.Error()
	}
	return tail(text, 100)
}

func (n *Node) logFile() string { return filepath.Join(n.cluster.layout.nodeDir(n.id), "log") }
func (n *Node) propertiesFile() string {
	return filepath.Join(n.cluster.layout.nodeDir(n.id), "server.properties")
}

// prepare lays out the directory of the node; what is there stays.
func (n *Node) prepare(clusterID string) error {
	l := n.cluster.layout
	data := filepath.Join(l.nodeDir(n.id), "data")
	if err := os.MkdirAll(data, 0o755); err != nil {
		return err
	}
	if err := l.properties(n.id).write(n.propertiesFile()); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(data, "meta.properties")); err == nil {
		return nil
	}
	if err := os.CopyFS(data, os.DirFS(n.cluster.dist.storage)); err != nil && !os.IsExist(err) {
		return err
	}
	meta := properties{"version": "1", "cluster.id": clusterID, "node.id": fmt.Sprint(n.id), "directory.id": randomID()}
	return meta.write(filepath.Join(data, "meta.properties"))
}
