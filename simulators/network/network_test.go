package network

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/citywarden/citywarden"
)

var examples = []string{"Net3", "valves", "pumps"}

func load(t testing.TB, name string) *Network {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name+".inp"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n, err := Read(name+".inp", f)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// states runs n to its end.
func states(t testing.TB, n *Network, o Options) []*State {
	t.Helper()
	r, err := NewRun(n, o)
	if err != nil {
		t.Fatal(err)
	}
	var out []*State
	for {
		s, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, s)
	}
}

// at returns the state at a moment.
func at(t testing.TB, all []*State, d time.Duration) *State {
	t.Helper()
	i := slices.IndexFunc(all, func(s *State) bool { return s.Time == d })
	if i < 0 {
		t.Fatalf("no state at %s", d)
	}
	return all[i]
}

// TestReference compares every head, demand, flow and status at every hour with
// what EPANET computes.
func TestReference(t *testing.T) {
	for _, name := range examples {
		t.Run(name, func(t *testing.T) {
			n := load(t, name)
			var out bytes.Buffer
			c, err := NewCSV(n, &out)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range states(t, n, Options{}) {
				if s.Time%time.Hour == 0 {
					if err := c.Write(s); err != nil {
						t.Fatal(err)
					}
				}
			}
			got, err := csv.NewReader(&out).ReadAll()
			if err != nil {
				t.Fatal(err)
			}
			f, err := os.Open(filepath.Join("testdata", name+"-reference.csv"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			want, err := csv.NewReader(f).ReadAll()
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != len(want) || !slices.Equal(got[0], want[0]) {
				t.Fatalf("%d rows with the columns %s, want %d with %s", len(got), got[0], len(want), want[0])
			}
			var head, flow, relative float64 // largest differences
			for i, w := range want[1:] {
				g := got[i+1]
				if !slices.Equal(g[:3], w[:3]) {
					t.Fatalf("row %d is %s, want %s", i+2, g, w)
				}
				v := func(row []string, column int) float64 {
					x, err := strconv.ParseFloat(row[column], 64)
					if err != nil {
						t.Fatal(err)
					}
					return x
				}
				column := 3
				if w[1] == "node" {
					d := math.Abs(v(g, 3)-v(w, 3)) * metresPerFoot
					if n.Units.Metric {
						d /= metresPerFoot
					}
					if head = math.Max(head, d); d > 0.001 { // 0.1 is asked for
						t.Errorf("%s: head %s, want %s", w[:3], g[3], w[3])
					}
					column = 4
				} else if g[4] != w[4] {
					t.Errorf("%s: status %s, want %s", w[:3], g[4], w[4])
				}
				d, size := math.Abs(v(g, column)-v(w, column)), math.Abs(v(w, column))
				flow = math.Max(flow, d)
				if size >= 0.01 {
					relative = math.Max(relative, d/size)
				}
				if d > 0.0005*size+0.0005 { // a tenth of what is asked for, and what the digits cannot tell
					t.Errorf("%s: %s, want %s", w[:3], g[column], w[column])
				}
			}
			t.Logf("largest differences in %d rows: head %.6f m; flows and demands %.6f %s, %.4f %%", len(want)-1, head, flow, n.Units.Flow, 100*relative)
		})
	}
}

func TestMassBalance(t *testing.T) {
	for _, name := range examples {
		n := load(t, name)
		// A pressure reducing valve passes what was missing behind it one trial ago;
		// EPANET's accuracy of 0.001 would show.
		n.options.accuracy = 1e-7
		// With a leak in the middle of it.
		id := n.Nodes()[n.junctions/2].ID
		for _, s := range states(t, n, Options{Events: []Event{{At: 3 * time.Hour, Node: id, Leak: 5}}}) {
			in := make([]float64, len(s.Nodes))
			for i, l := range n.Links() {
				in[l.From] -= s.Links[i].Flow
				in[l.To] += s.Links[i].Flow
			}
			for i, d := range s.Nodes {
				// What is closed passes a ten millionth of a cubic foot per foot of head.
				if math.Abs(in[i]-d.Demand) > 0.003 {
					t.Errorf("%s at %s: %g %s flow into node %s and %g leave it", name, s.Time, in[i], n.Units.Flow, n.nodes[i].id, d.Demand)
				}
			}
		}
	}
}

// TestTanksKeepTheirWater: what flowed in is what is there.
func TestTanksKeepTheirWater(t *testing.T) {
	n := load(t, "Net3")
	all := states(t, n, Options{})
	for i := range n.nodes {
		d := &n.nodes[i]
		if d.tank == nil {
			continue
		}
		volume := d.tank.volume
		for k, s := range all[1:] {
			volume += all[k].Nodes[i].Demand / n.factors.flow * (s.Time - all[k].Time).Seconds()
			if want := n.volumeAt(d, s.Nodes[i].Head); math.Abs(volume-want) > 1e-6*want {
				t.Errorf("tank %s at %s: %.1f ft³ flowed in, it holds %.1f", d.id, s.Time, volume, want)
			}
		}
	}
}

// hops returns how far every node is from one, along the pipes.
func hops(n *Network, from int) []float64 {
	far := make([]float64, len(n.nodes))
	for i := range far {
		far[i] = math.Inf(1)
	}
	far[from] = 0
	for changed := true; changed; {
		changed = false
		for i := range n.links {
			k := &n.links[i]
			for _, e := range [][2]int{{k.from, k.to}, {k.to, k.from}} {
				if d := far[e[0]] + k.length; k.isPipe() && k.status == open && d < far[e[1]] {
					far[e[1]], changed = d, true
				}
			}
		}
	}
	return far
}

func TestBurstLowersPressureMostNearby(t *testing.T) {
	n := load(t, "Net3")
	const burst = 6 * time.Hour
	calm := at(t, states(t, n, Options{}), burst)
	for _, id := range []string{"105", "143", "191", "213", "251"} {
		all := states(t, n, Options{Events: []Event{
			{At: burst, Node: id, Leak: 60},
			{At: burst + 40*time.Minute, Node: id},
		}})
		s := at(t, all, burst)
		where := n.Node(id)
		far := hops(n, where)
		var order []int
		for i := range n.junctions {
			order = append(order, i)
		}
		drop := func(i int) float64 { return calm.Nodes[i].Pressure - s.Nodes[i].Pressure }
		slices.SortStableFunc(order, func(a, b int) int { return int(math.Copysign(1, drop(b)-drop(a))) })
		// A branch beyond the burst, which nothing else feeds, loses as much.
		if drop(where) < drop(order[0])-0.001 || drop(where) < 0.5 {
			t.Errorf("burst at %s: the pressure falls most (%.2f psi) at %s", id, drop(order[0]), n.nodes[order[0]].id)
		}
		// The ten nodes with the largest drops are nearer than the rest on average.
		mean := func(of []int) (sum float64) {
			for _, i := range of {
				sum += math.Min(far[i], 1e5) / float64(len(of))
			}
			return sum
		}
		if near, rest := mean(order[:10]), mean(order[10:]); near > rest/2 {
			t.Errorf("burst at %s: the ten nodes with the largest drops are %.0f ft away, the others %.0f ft", id, near, rest)
		}
		if leak := s.Nodes[where].Demand - calm.Nodes[where].Demand; math.Abs(leak-60*math.Sqrt(s.Nodes[where].Pressure)) > 0.01*leak {
			t.Errorf("burst at %s: %.1f GPM escape at %.1f psi", id, leak, s.Nodes[where].Pressure)
		}
		// While it lasts more leaves the sources; when it is repaired all is nearly as before.
		repaired := at(t, all, burst+40*time.Minute)
		if d := calm.Nodes[where].Pressure - repaired.Nodes[where].Pressure; math.Abs(d) > 1 {
			t.Errorf("repaired burst at %s: the pressure is still %.2f psi lower", id, d)
		}
	}
}

func TestValveOperations(t *testing.T) {
	n := load(t, "Net3")
	pipe := n.Link("177")
	all := states(t, n, Options{Duration: 3 * time.Hour, Events: []Event{
		{At: time.Hour, Link: "177", Do: Close},
		{At: 2*time.Hour + 30*time.Second, Link: "177", Do: Open},
	}})
	for _, s := range all {
		open := s.Time < time.Hour || s.Time > 2*time.Hour
		if l := s.Links[pipe]; l.Open != open || (l.Flow != 0) != open {
			t.Errorf("at %s: pipe 177 is %+v", s.Time, l)
		}
	}
	n = load(t, "valves")
	all = states(t, n, Options{Duration: 2 * time.Hour, Events: []Event{{At: time.Hour, Link: "v2", Do: Set, Setting: 10}}})
	for _, s := range all {
		if q := s.Links[n.Link("v2")].Flow; (s.Time >= time.Hour) != (math.Abs(q-10) < 0.001) || q < 9.9 {
			t.Errorf("at %s: %.3f L/s through the flow control valve, which is set to 10 after an hour", s.Time, q)
		}
	}
	for _, e := range []Event{
		{At: -1}, {At: time.Millisecond, Node: "A"}, {}, {Node: "A", Link: "p1"}, {Node: "Z"}, {Node: "R", Leak: 1}, {Node: "A", Leak: -1}, {Node: "A", Leak: math.NaN()},
		{Link: "Z"}, {Link: "p9", Do: Close}, {Link: "p1", Do: Set}, {Link: "p1"}, {Link: "v5", Do: Set, Setting: 1},
	} {
		if _, err := NewRun(n, Options{Events: []Event{e}}); err == nil {
			t.Errorf("the event %+v was taken", e)
		}
	}
}

// TestStep: a run in small steps, as a pressure logger samples, comes to where
// a run in long ones comes.
func TestStep(t *testing.T) {
	n := load(t, "Net3")
	long := at(t, states(t, n, Options{Duration: time.Hour}), time.Hour)
	fine := states(t, n, Options{Duration: time.Hour, Step: 10 * time.Second})
	if len(fine) != 361 {
		t.Errorf("%d states in an hour of 10 s steps", len(fine))
	}
	for i := range long.Nodes {
		if a, b := long.Nodes[i].Head, at(t, fine, time.Hour).Nodes[i].Head; math.Abs(a-b) > 1 {
			t.Errorf("head at %s: %.2f ft in one step, %.2f in 360", n.nodes[i].id, a, b)
		}
	}
}

// TestBegin: a run that begins later in the day has the demands of that time.
func TestBegin(t *testing.T) {
	n := load(t, "valves")
	day := states(t, n, Options{Duration: 8 * time.Hour})
	late := states(t, n, Options{Duration: 2 * time.Hour, Begin: 6 * time.Hour})
	for i, d := range n.Nodes() {
		if d.Kind != Junction || n.nodes[i].discharge > 0 {
			continue
		}
		a, b := at(t, day, 6*time.Hour).Nodes[i].Demand, late[0].Nodes[i].Demand
		c, e := at(t, day, 7*time.Hour).Nodes[i].Demand, at(t, late, time.Hour).Nodes[i].Demand
		if math.Abs(a-b) > 1e-9 || math.Abs(c-e) > 1e-9 {
			t.Errorf("node %s: at six %g and at seven %g, a run that begins at six has %g and %g", d.ID, a, c, b, e)
		}
	}
	if _, err := NewRun(n, Options{Begin: -1}); err == nil {
		t.Error("a run that begins before midnight was taken")
	}
}

// TestSolver: a single moment is as the run has it, whatever was asked before.
func TestSolver(t *testing.T) {
	for _, name := range examples {
		n := load(t, name)
		v := NewSolver(n)
		want := states(t, n, Options{Duration: time.Second})[0]
		for range 2 {
			if _, err := v.Solve(Moment{Time: 7 * time.Hour, Load: 0.3, Leaks: []Leak{{0, 10}}}); err != nil {
				t.Fatal(err)
			}
			got, err := v.Solve(Moment{})
			if err != nil {
				t.Fatal(err)
			}
			for i := range got.Nodes {
				if d := math.Abs(got.Nodes[i].Head - want.Nodes[i].Head); d > 0.02 {
					t.Errorf("%s: head at %s differs by %g", name, n.nodes[i].id, d)
				}
			}
		}
	}
}

const small = `[JUNCTIONS]
a 10 5
b 12 3
[RESERVOIRS]
r 50
[TANKS]
t 40 2 0 5 10
[PIPES]
p r a 100 200 110
q a b 100 200 110
s b t 100 200 110
[CURVES]
c 10 20
[OPTIONS]
UNITS LPS
`

func TestMistakes(t *testing.T) {
	if _, err := Read("x.inp", strings.NewReader(small)); err != nil {
		t.Fatal(err)
	}
	last := strings.Count(small, "\n")
	for text, want := range map[string]string{
		"[PIPS]\n":                                      `x.inp:+1: there is no section "[PIPS]"; did you mean "[PIPES]"?`,
		"[ENERGI]\n":                                    `x.inp:+1: there is no section "[ENERGI]"; did you mean "[ENERGY]"? EPANET 2.3 wants the whole name`,
		"[COORD]\n":                                     `x.inp:+1: there is no section "[COORD]"; did you mean "[COORDINATES]"? EPANET 2.3 wants the whole name`,
		"[ENERGY\n":                                     `x.inp:+1: there is no section "[ENERGY"; did you mean "[ENERGY]"? EPANET 2.3 wants the whole name`,
		"UNITS furlongs\n":                              `x.inp:+1: unit of flow "furlongs" is not known; allowed are CFS, GPM, MGD, IMGD, AFD, LPS, LPM, MLD, CMH, CMD, CMS`,
		"HEADLOSS D+W\n":                                `x.inp:+1: head loss formula "D+W" is not known; did you mean "D-W"?`,
		"VSICOSITY 1\n":                                 `x.inp:+1: there is no option "VSICOSITY"; did you mean "VISCOSITY"?`,
		"ACCURACY fine\n":                               `x.inp:+1: value of ACCURACY "fine" is not a number`,
		"[JUNCTIONS]\na 1\n":                            `x.inp:+2: there are two nodes a`,
		"[JUNCTIONS]\nc x\n":                            `x.inp:+2: elevation "x" is not a number`,
		"[JUNCTIONS]\nc 1e99\n":                         `x.inp:+2: elevation "1e99" is not a number`,
		"[JUNCTIONS]\nc 1\n":                            `x.inp:+2: junction c has no link`,
		"[JUNCTIONS]\nc 1 1 day\n":                      `x.inp:+2: there is no pattern "day" in [PATTERNS]`,
		"[TANKS]\nu 1 6 0 5 10\n":                       `x.inp:+2: tank u begins at level 6, which is not between its minimum 0 and maximum 5`,
		"[TANKS]\nu 1 1 0 5 10 0 c\n":                   `x.inp:+2: curve c has 1 point; at least 2 are needed`,
		"[PIPES]\nz a x 1 1 1\n":                        `x.inp:+2: link z: there is no node "x"`,
		"[PIPES]\nz a b -1 1 1\n":                       `x.inp:+2: length -1 is below 0`,
		"[PIPES]\nz a b 1 0 1\n":                        `x.inp:+2: diameter 0 must be above 0`,
		"[PIPES]\nz a b 1 1 1 0 Shut\n":                 `x.inp:+2: status "Shut" is not known; allowed are OPEN, CLOSED, CV`,
		"[PUMPS]\nz a b\n":                              `x.inp:+2: a pump is: ID node node KEYWORD value …, with the keywords HEAD curve, POWER value, SPEED value, PATTERN id`,
		"[PUMPS]\nz a b HEAD d\n":                       `x.inp:+2: there is no curve "d" in [CURVES]`,
		"[PUMPS]\nz a b SPEED 1\n":                      `x.inp:+2: pump z has no HEAD curve and no POWER`,
		"[VALVES]\nz a b 100 PVR 1\n":                   `x.inp:+2: type of valve "PVR" is not known; did you mean "PRV"?`,
		"[VALVES]\nz a b 100 PCV 1\n":                   `x.inp:+2: valve z: valves of type PCV are not supported; use a TCV or a GPV`,
		"[VALVES]\nz a r 100 PRV 1\n":                   `x.inp:+2: valve z: a PRV must not be connected to a tank or a reservoir; put a pipe between them`,
		"[LEAKAGE]\np 1 1\n":                            `x.inp:+2: leakage by area and expansion is not supported; give the nodes a coefficient in [EMITTERS]`,
		"[TIMES]\nDURATION soon\n":                      `x.inp:+2: "soon" is not a time; write hours, h:mm, h:mm:ss, a number with SEC, MIN, HOURS or DAYS, or a clock time with AM or PM`,
		"[CONTROLS]\nLINK p OPEN IF NODE t OVER 3\n":    `x.inp:+2: condition "OVER" is not known; allowed are BELOW, ABOVE`,
		"[CONTROLS]\nLINK z OPEN AT TIME 3\n":           `x.inp:+2: there is no link "z"`,
		"[RULES]\nRULE 1\nIF TANK t LEVEL > 3\n":        `x.inp:+2: the rule has no THEN`,
		"[RULES]\nRULE 1\nTHEN LINK p STATUS IS OPEN\n": `x.inp:+3: THEN has no place after "RULE"; a rule is: RULE id, IF …, AND|OR …, THEN …, ELSE …, PRIORITY number`,
		"[RULES]\nRULE 1\nIF TANK t LEVLE > 3\n":        `x.inp:+3: variable "LEVLE" is not known; did you mean "LEVEL"?`,
	} {
		_, err := Read("x.inp", strings.NewReader(small+text))
		for i := range 4 {
			want = strings.Replace(want, fmt.Sprintf(":+%d:", i), fmt.Sprintf(":%d:", last+i), 1)
		}
		if err == nil || err.Error() != want || citywarden.CodeOf(err) != citywarden.CodeInvalid {
			t.Errorf("%q: %v\nwant %s", text, err, want)
		}
	}
	for text, want := range map[string]string{
		"":                        "x.inp:1: the network has 0 nodes; it needs at least 2",
		"hello\n":                 "x.inp:1: this line is in no section; a file begins with one such as [JUNCTIONS]",
		"[JUNCTIONS]\na 1\nb 1\n": "x.inp:1: the network has no reservoir and no tank",
		"[TITLE]\n" + strings.Repeat("x", maxLine) + "\n": "x.inp:2: the line is longer than 65536 bytes",
	} {
		if _, err := Read("x.inp", strings.NewReader(text)); err == nil || err.Error() != want {
			t.Errorf("%.20q: %v, want %s", text, err, want)
		}
	}
}

// TestElimination compares the sparse solution with one by dense elimination.
func TestElimination(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		n := 2 + r.IntN(60)
		var edges [][2]int
		for range n + r.IntN(2*n) {
			edges = append(edges, [2]int{r.IntN(n), r.IntN(n+1) - 1})
		}
		m := newSystem(analyse(n, edges))
		dense := make([][]float64, n)
		for i := range dense {
			dense[i] = make([]float64, n+1)
			v := 0.01 + r.Float64()
			dense[i][i] = v
			m.diagonal[m.row[i]] += v
			dense[i][n] = r.NormFloat64()
			m.right[m.row[i]] = dense[i][n]
		}
		for k, e := range edges {
			if e[0] == e[1] {
				continue
			}
			g := r.ExpFloat64()
			dense[e[0]][e[0]] += g
			m.diagonal[m.row[e[0]]] += g
			if e[1] < 0 {
				continue
			}
			dense[e[1]][e[1]] += g
			m.diagonal[m.row[e[1]]] += g
			dense[e[0]][e[1]] -= g
			dense[e[1]][e[0]] -= g
			m.lower[m.slot[k]] -= g
		}
		if row := m.solve(); row >= 0 {
			t.Fatalf("not positive definite at row %d", row)
		}
		for k := range n {
			for i := k + 1; i < n; i++ {
				f := dense[i][k] / dense[k][k]
				for j := k; j <= n; j++ {
					dense[i][j] -= f * dense[k][j]
				}
			}
		}
		for k := n - 1; k >= 0; k-- {
			for j := k + 1; j < n; j++ {
				dense[k][n] -= dense[k][j] * dense[j][n]
			}
			dense[k][n] /= dense[k][k]
			if got := m.right[m.row[k]]; math.Abs(got-dense[k][n]) > 1e-8*(1+math.Abs(got)) {
				t.Fatalf("unknown %d is %g, want %g", k, got, dense[k][n])
			}
		}
	}
}

// FuzzRead: no file makes the reader panic, its errors name the file, and what
// it takes can be run or is refused with an error.
func FuzzRead(f *testing.F) {
	f.Add([]byte(small))
	for _, name := range examples[1:] { // Net3 is too large to be changed here and there
		b, err := os.ReadFile(filepath.Join("testdata", name+".inp"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := Read("x.inp", bytes.NewReader(b))
		if err != nil {
			if !strings.HasPrefix(err.Error(), "x.inp:") {
				t.Fatalf("%v does not name the file", err)
			}
			return
		}
		if len(n.nodes) > 300 {
			return
		}
		r, err := NewRun(n, Options{})
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			s, err := r.Next()
			if err != nil {
				break
			}
			for _, d := range s.Nodes {
				if math.IsNaN(d.Head) {
					t.Fatal("a head is no number")
				}
			}
		}
	})
}

// BenchmarkNet3 is one day of Net3, 27 moments with what its controls add.
func BenchmarkNet3(b *testing.B) {
	n := load(b, "Net3")
	b.ReportAllocs()
	for b.Loop() {
		states(b, n, Options{})
	}
}
