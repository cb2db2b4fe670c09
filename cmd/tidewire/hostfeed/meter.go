package hostfeed

import (
	"math"
	"strings"
	"time"

	"github.com/shirou/gopsutil/v4/cpu"
	"github.com/shirou/gopsutil/v4/mem"
	"github.com/shirou/gopsutil/v4/net"
)

// figures are what is measured; nil is what could not be.
type figures struct {
	CPU    *float64 `json:"cpu,omitempty"`    // percent of all cores
	Memory *float64 `json:"memory,omitempty"` // percent
	RX     *float64 `json:"rx,omitempty"`     // bytes in a second, without those of this machine to itself
	TX     *float64 `json:"tx,omitempty"`
}

// meter measures between two readings.
type meter struct {
	busy, total float64 // seconds of all cores
	rx, tx      uint64
	at          time.Time
	known       bool // rx, tx and at are
}

func newMeter() *meter {
	m := new(meter)
	m.read()
	return m
}

// read returns the figures since the last reading.
func (m *meter) read() figures {
	var f figures
	f.CPU = m.readCPU()
	if v, err := mem.VirtualMemory(); err == nil {
		f.Memory = tenths(v.UsedPercent)
	}
	f.RX, f.TX = m.readNetwork()
	return f
}

func (m *meter) readCPU() *float64 {
	all, err := cpu.Times(false)
	if err != nil || len(all) == 0 {
		return nil
	}
	t := all[0]
	busy := t.User + t.System + t.Nice + t.Irq + t.Softirq + t.Steal
	total := busy + t.Idle + t.Iowait
	newBusy, newTotal := busy-m.busy, total-m.total
	m.busy, m.total = busy, total
	if newTotal <= 0 || newBusy < 0 {
		return nil
	}
	return tenths(min(100*newBusy/newTotal, 100))
}

func (m *meter) readNetwork() (rx, tx *float64) {
	all, err := net.IOCounters(true)
	if err != nil {
		m.known = false
		return nil, nil
	}
	var in, out uint64
	for i := range all {
		if strings.HasPrefix(strings.ToLower(all[i].Name), "lo") {
			continue // lo, lo0, Loopback Pseudo-Interface
		}
		in += all[i].BytesRecv
		out += all[i].BytesSent
	}
	now := time.Now()
	if seconds := now.Sub(m.at).Seconds(); m.known && seconds > 0 && in >= m.rx && out >= m.tx { // an interface may go
		rx, tx = new(math.Round(float64(in-m.rx)/seconds)), new(math.Round(float64(out-m.tx)/seconds))
	}
	m.rx, m.tx, m.at, m.known = in, out, now, true
	return rx, tx
}

// tenths rounds, so that messages stay short.
func tenths(v float64) *float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	return new(math.Round(v*10) / 10)
}
