package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/citywarden/citywarden/simulators/network"
)

type simulateNetworkCmd struct {
	File string `arg:"" help:"EPANET input file (.inp)." type:"path"`
	CSV  bool   `help:"Print heads, demands, flows and status at every full hour, in the file's units." name:"csv"`
}

// Run computes the network and prints what comes out.
func (c *simulateNetworkCmd) Run(o output) error {
	f, err := os.Open(c.File)
	if err != nil {
		return &usageError{err.Error()}
	}
	defer f.Close()
	n, err := network.Read(filepath.Base(c.File), f)
	if err != nil {
		return &usageError{err.Error()}
	}
	run, err := network.NewRun(n, network.Options{})
	if err != nil {
		return err
	}
	out := bufio.NewWriter(o.out)
	w, err := c.writer(n, out)
	if err != nil {
		return err
	}
	for {
		s, err := run.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(c.File), err)
		}
		for _, warning := range s.Warnings {
			fmt.Fprintf(o.err, "warning: at %s: %s\n", clock(s.Time), warning)
		}
		if err := w.Write(s); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	return out.Flush()
}

// networkWriter takes the states of a run, one after the other.
type networkWriter interface {
	Write(*network.State) error
	Close() error
}

func (c *simulateNetworkCmd) writer(n *network.Network, out io.Writer) (networkWriter, error) {
	if !c.CSV {
		return &networkSummary{n: n, nodes: n.Nodes(), out: out}, nil
	}
	w, err := network.NewCSV(n, out)
	return hourly{w}, err
}

// hourly writes the states at full hours.
type hourly struct{ csv *network.CSV }

func (h hourly) Write(s *network.State) error {
	if s.Time%time.Hour != 0 {
		return nil
	}
	return h.csv.Write(s)
}

func (hourly) Close() error { return nil }

// networkSummary prints what people want to know first.
type networkSummary struct {
	n     *network.Network
	nodes []network.Node
	out   io.Writer

	last         *network.State
	moments      int
	lowest, most extreme
}

type extreme struct {
	pressure float64
	node     string
	at       time.Duration
}

func (m *networkSummary) Write(s *network.State) error {
	for i, d := range s.Nodes {
		if m.nodes[i].Kind != network.Junction {
			continue
		}
		e := extreme{d.Pressure, m.nodes[i].ID, s.Time}
		if m.lowest.node == "" || e.pressure < m.lowest.pressure {
			m.lowest = e
		}
		if m.most.node == "" || e.pressure > m.most.pressure {
			m.most = e
		}
	}
	if m.last == nil {
		m.heading(s)
	}
	if s.Time%time.Hour == 0 {
		m.tanks(s)
	}
	m.last = s
	m.moments++
	return nil
}

// heading prints what the network consists of, and the heading of the tanks.
func (m *networkSummary) heading(s *network.State) {
	count := map[network.Kind]int{}
	for _, d := range m.nodes {
		count[d.Kind]++
	}
	links := m.n.Links()
	for _, l := range links {
		count[l.Kind]++
	}
	pipes, pumps := count[network.Pipe]+count[network.CheckValve], count[network.Pump]
	fmt.Fprintf(m.out, "%d junctions, %d reservoirs, %d tanks; %d pipes, %d pumps, %d valves; %s, %s, %s\n",
		count[network.Junction], count[network.Reservoir], count[network.Tank], pipes, pumps, len(links)-pipes-pumps,
		m.n.Units.Flow, m.n.Units.Length, m.n.Units.Pressure)
	if count[network.Tank] > 0 {
		fmt.Fprintf(m.out, "level of tanks in %s\n%9s", m.n.Units.Length, "")
		for _, d := range m.nodes {
			if d.Kind == network.Tank {
				fmt.Fprintf(m.out, " %9s", d.ID)
			}
		}
		fmt.Fprintln(m.out)
	}
}

func (m *networkSummary) tanks(s *network.State) {
	some := false
	for i, d := range m.nodes {
		if d.Kind != network.Tank {
			continue
		}
		if !some {
			fmt.Fprintf(m.out, "%9s", clock(s.Time))
		}
		some = true
		fmt.Fprintf(m.out, " %9.2f", s.Nodes[i].Head-d.Elevation)
	}
	if some {
		fmt.Fprintln(m.out)
	}
}

func (m *networkSummary) Close() error {
	for _, e := range []struct {
		name string
		extreme
	}{{"lowest", m.lowest}, {"highest", m.most}} {
		if e.node != "" {
			fmt.Fprintf(m.out, "%s pressure %.2f %s at node %s, %s\n", e.name, e.pressure, m.n.Units.Pressure, e.node, clock(e.at))
		}
	}
	_, err := fmt.Fprintf(m.out, "%d moments solved, up to %s\n", m.moments, clock(m.last.Time))
	return err
}

// clock writes hours, minutes and seconds since the start.
func clock(d time.Duration) string {
	s := int(d / time.Second)
	return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
}
