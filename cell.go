package citywarden

import "strings"

// formulaStarts are what makes a spreadsheet take a cell for a formula.
const formulaStarts = "=+-@"

// QuoteCell puts an apostrophe before a text that a spreadsheet would execute,
// or that has such an apostrophe already; UnquoteCell takes it away.
func QuoteCell(s string) string {
	if t := strings.TrimLeft(s, "'"); t != "" && strings.ContainsRune(formulaStarts, rune(t[0])) {
		return "'" + s
	}
	return s
}

// UnquoteCell returns what QuoteCell was given.
func UnquoteCell(s string) string {
	if t := strings.TrimLeft(s, "'"); len(t) < len(s) && t != "" && strings.ContainsRune(formulaStarts, rune(t[0])) {
		return s[1:]
	}
	return s
}
