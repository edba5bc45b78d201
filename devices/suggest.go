package devices

import (
	"slices"
	"strings"

	"github.com/citywarden/citywarden"
)

// suggest returns `; did you mean "x"?` when a candidate is near to word, else
// `; it is a, b or c` with the first ten.
func suggest(word string, candidates []string) string {
	if s := citywarden.DidYouMean(word, candidates); s != "" {
		return s
	}
	switch n := len(candidates) - 1; {
	case n < 0:
		return ""
	case n == 0:
		return "; it is " + candidates[0]
	case n >= 10:
		return "; it is " + strings.Join(candidates[:10], ", ") + " …"
	default:
		return "; it is " + strings.Join(candidates[:n], ", ") + " or " + candidates[n]
	}
}

// sortedKeys returns the keys of m in order.
func sortedKeys[K ~string, V any](m map[K]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, string(k))
	}
	slices.Sort(keys)
	return keys
}
