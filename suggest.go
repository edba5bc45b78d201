package citywarden

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// maxGuess is the longest word that DidYouMean looks at, in bytes: some come
// from devices.
const maxGuess = 64

// DidYouMean returns `; did you mean "w"?` for the one of words that s was most
// likely meant to be, to be put behind an error message; "" when none is near.
// A third of its letters, and one more, may be wrong, missing or swapped, or it is
// how a single word begins; the case of letters does not count.
func DidYouMean(s string, words []string) string {
	if len(s) > maxGuess {
		return ""
	}
	best, least := "", min(len(s)/3+2, len(s))
	for _, w := range words {
		if d := editDistance(strings.ToLower(s), strings.ToLower(w)); d < least {
			best, least = w, d
		}
	}
	if least > 1 && len(s) > 2 {
		begun := slices.DeleteFunc(slices.Clone(words), func(w string) bool { return !strings.HasPrefix(strings.ToLower(w), strings.ToLower(s)) })
		if len(begun) == 1 {
			best = begun[0]
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(didYouMean+"%q?", best)
}

const didYouMean = "; did you mean "

// suggested returns the word that DidYouMean put into message, "" for none.
func suggested(message string) string {
	_, rest, _ := strings.Cut(message, didYouMean)
	quoted, err := strconv.QuotedPrefix(rest)
	if err != nil {
		return ""
	}
	word, _ := strconv.Unquote(quoted)
	return word
}

// editDistance counts the insertions, deletions, substitutions and swaps of
// neighbours that turn a into b (optimal string alignment).
func editDistance(a, b string) int {
	x, y := []rune(a), []rune(b)
	rows := make([][]int, len(x)+1)
	for i := range rows {
		rows[i] = make([]int, len(y)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(x); i++ {
		for j := 1; j <= len(y); j++ {
			cost := 1
			if x[i-1] == y[j-1] {
				cost = 0
			}
			d := min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				d = min(d, rows[i-2][j-2]+1)
			}
			rows[i][j] = d
		}
	}
	return rows[len(x)][len(y)]
}
