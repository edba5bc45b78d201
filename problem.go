package citywarden

import (
	"fmt"
	"strings"
)

// Problem is one mistake in a file that an operator wrote.
type Problem struct {
	File    string `json:"file"`
	Line    int    `json:"line"` // from 1; 0 when the mistake has no place
	Col     int    `json:"col"`  // in characters, from 1
	Message string `json:"message"`
	Snippet string `json:"snippet"` // the line, and below it a caret; "" when there is no such line

	// Suggestion is the word that was probably meant, which Message says too.
	Suggestion string `json:"suggestion,omitempty"`
}

// ProblemAt returns the problem at line and col of a file that consists of lines.
func ProblemAt(file string, lines []string, line, col int, message string) Problem {
	p := Problem{File: file, Line: line, Col: col, Message: message, Suggestion: suggested(message)}
	if line >= 1 && line <= len(lines) {
		text := strings.ReplaceAll(strings.TrimRight(lines[line-1], "\r"), "\t", " ")
		p.Snippet = "  " + text + "\n  " + strings.Repeat(" ", width(text, col-1)) + "^"
	}
	return p
}

// width returns how wide the first n characters of text are on a terminal,
// where Chinese ones take two columns.
func width(text string, n int) int {
	w := 0
	for _, r := range text {
		if n--; n < 0 {
			break
		}
		w++
		if r >= 0x1100 && r <= 0x115f || r >= 0x2e80 && r <= 0xffe6 || r >= 0x1f300 {
			w++
		}
	}
	return w
}

// Error reads "file:line:col: message", then the snippet.
func (p Problem) Error() string {
	s := fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Col, p.Message)
	if p.Snippet != "" {
		s += "\n" + p.Snippet
	}
	return s
}

// Problems are all mistakes that were found, in the order of their places.
type Problems []Problem

// Error returns one problem after the other.
func (ps Problems) Error() string {
	all := make([]string, len(ps))
	for i, p := range ps {
		all[i] = p.Error()
	}
	return strings.Join(all, "\n")
}
