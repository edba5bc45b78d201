package network

import (
	"math"
	"slices"
)

// symbolic is where a symmetric matrix and its Cholesky factor have entries. It
// depends on which junctions are joined only, so it is found once per network.
type symbolic struct {
	row   []int // of each unknown in the order of elimination
	start []int // of each column of the factor below its diagonal, len(row)+1
	index []int // rows of those entries, rising in each column
	slot  []int // of each link: place of its entry in index, -1 if an end is fixed
}

// analyse orders the n unknowns by minimum degree, so that elimination creates
// few new entries, and finds the entries of the factor. Each edge joins two
// unknowns; one that is negative joins nothing.
func analyse(n int, edges [][2]int) *symbolic {
	near := make([]map[int]struct{}, n)
	for i := range near {
		near[i] = map[int]struct{}{}
	}
	for _, e := range edges {
		if a, b := e[0], e[1]; a >= 0 && b >= 0 && a != b {
			near[a][b], near[b][a] = struct{}{}, struct{}{}
		}
	}
	s := &symbolic{row: make([]int, n), start: make([]int, 1, n+1), slot: make([]int, len(edges))}
	// Unknowns by degree, each bucket sorted by when it was filled; stale entries
	// are skipped when they are met.
	buckets := make([][]int, n+1)
	for i := range n {
		buckets[len(near[i])] = append(buckets[len(near[i])], i)
	}
	done := make([]bool, n)
	columns := make([][]int, n) // by row: unknowns below the diagonal
	least := 0
	for k := range n {
		var at int
		for {
			b := buckets[least]
			if len(b) == 0 {
				least++
				continue
			}
			at = b[len(b)-1]
			buckets[least] = b[:len(b)-1]
			if !done[at] && len(near[at]) == least {
				break
			}
		}
		done[at] = true
		s.row[at] = k
		column := make([]int, 0, len(near[at]))
		for i := range near[at] {
			column = append(column, i)
		}
		slices.Sort(column)
		columns[k] = column
		for _, i := range column { // what at joined is now joined directly
			delete(near[i], at)
			for _, j := range column {
				if j != i {
					near[i][j] = struct{}{}
				}
			}
		}
		for _, i := range column {
			d := len(near[i])
			buckets[d] = append(buckets[d], i)
			least = min(least, d)
		}
		near[at] = nil
	}
	for _, column := range columns {
		for i, v := range column {
			column[i] = s.row[v]
		}
		slices.Sort(column)
		s.index = append(s.index, column...)
		s.start = append(s.start, len(s.index))
	}
	for k, e := range edges {
		s.slot[k] = -1
		if e[0] >= 0 && e[1] >= 0 && e[0] != e[1] {
			a, b := s.row[e[0]], s.row[e[1]]
			low, high := min(a, b), max(a, b)
			i, _ := slices.BinarySearch(s.index[s.start[low]:s.start[low+1]], high)
			s.slot[k] = s.start[low] + i
		}
	}
	return s
}

// system is a set of linear equations with the structure of a symbolic.
type system struct {
	*symbolic
	diagonal []float64 // by row
	lower    []float64 // by slot
	right    []float64 // by row; the solution after solve

	work  []float64 // of factor: the column being computed
	next  []int     // of factor: first entry of each column not yet used
	first []int     // of factor: lists of the columns that reach a row
	link  []int
}

func newSystem(s *symbolic) *system {
	n := len(s.row)
	return &system{
		symbolic: s, diagonal: make([]float64, n), lower: make([]float64, len(s.index)), right: make([]float64, n),
		work: make([]float64, n), next: make([]int, n), first: make([]int, n), link: make([]int, n),
	}
}

func (m *system) clear() {
	clear(m.diagonal)
	clear(m.lower)
	clear(m.right)
}

// solve factors the matrix in place, column by column, and solves. It returns
// the row at which the matrix turns out not to be positive definite, or -1.
func (m *system) solve() int {
	for j := range m.first {
		m.first[j] = -1
	}
	for j := range m.diagonal {
		d := m.diagonal[j]
		for k := m.first[j]; k >= 0; { // the columns before that have an entry in row j
			after := m.link[k]
			p := m.next[k]
			ljk := m.lower[p]
			d -= ljk * ljk
			for q := p + 1; q < m.start[k+1]; q++ {
				m.work[m.index[q]] += m.lower[q] * ljk
			}
			m.pass(k, p+1)
			k = after
		}
		if !(d > 0) || math.IsInf(d, 0) {
			clear(m.work)
			return j
		}
		d = math.Sqrt(d)
		m.diagonal[j] = d
		for q := m.start[j]; q < m.start[j+1]; q++ {
			i := m.index[q]
			m.lower[q] = (m.lower[q] - m.work[i]) / d
			m.work[i] = 0
		}
		m.pass(j, m.start[j])
	}
	for j := range m.right {
		m.right[j] /= m.diagonal[j]
		for q := m.start[j]; q < m.start[j+1]; q++ {
			m.right[m.index[q]] -= m.lower[q] * m.right[j]
		}
	}
	for j := len(m.right) - 1; j >= 0; j-- {
		for q := m.start[j]; q < m.start[j+1]; q++ {
			m.right[j] -= m.lower[q] * m.right[m.index[q]]
		}
		m.right[j] /= m.diagonal[j]
	}
	return -1
}

// pass puts column k on the list of the row of its entry p.
func (m *system) pass(k, p int) {
	m.next[k] = p
	if p < m.start[k+1] {
		row := m.index[p]
		m.link[k], m.first[row] = m.first[row], k
	}
}
