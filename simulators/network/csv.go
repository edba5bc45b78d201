package network

import (
	"encoding/csv"
	"io"
	"strconv"
	"time"
)

// CSV writes states as rows time_s, kind, id, value1, value2: of a node its
// head and what leaves the network there (or flows into the tank or reservoir),
// of a link its flow and 1 if it is open, 0 if it is closed, 2 if it is a valve
// at work.
type CSV struct {
	n *Network
	w *csv.Writer
}

// NewCSV returns a CSV that writes to w, and writes the heading.
func NewCSV(n *Network, w io.Writer) (*CSV, error) {
	c := &CSV{n: n, w: csv.NewWriter(w)}
	return c, c.w.Write([]string{"time_s", "kind", "id", "value1", "value2"})
}

// Write writes one state.
func (c *CSV) Write(s *State) error {
	at := strconv.Itoa(int(s.Time / time.Second))
	number := func(v float64) string { return strconv.FormatFloat(v, 'f', 4, 64) }
	for i, d := range s.Nodes {
		if err := c.w.Write([]string{at, "node", c.n.nodes[i].id, number(d.Head), number(d.Demand)}); err != nil {
			return err
		}
	}
	for i, k := range s.Links {
		state := "0"
		switch {
		case k.Active:
			state = "2"
		case k.Open:
			state = "1"
		}
		if err := c.w.Write([]string{at, "link", c.n.links[i].id, number(k.Flow), state}); err != nil {
			return err
		}
	}
	c.w.Flush()
	return c.w.Error()
}
