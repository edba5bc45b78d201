package rules

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/expr-lang/expr/file"
)

// parseError is a mistake that expr found, with its place.
func parseError(err error) *exprError {
	var fe *file.Error
	if errors.As(err, &fe) {
		msg := fe.Message
		if strings.Contains(msg, "exceeds maximum allowed nodes") {
			msg = fmt.Sprintf("the condition has more than %d parts; split the rule", maxNodes)
		}
		return &exprError{fe.From, msg}
	}
	return &exprError{0, err.Error()}
}

var unexpected = regexp.MustCompile(`unexpected token (?:\w+\("(.*)"\)|EOF)`)

// wrote says what to write instead of words and signs of other languages.
var wrote = map[string]string{
	"=":       "compare with ==",
	"#":       "comments stand outside the condition, after # in the YAML",
	"is":      "compare with ==",
	"equals":  "compare with ==",
	"xor":     "compare the two with !=",
	"like":    "use contains, startsWith, endsWith or matches",
	"between": "write x >= 1 and x <= 2",
	"then":    "a condition needs no if",
	"if":      "a condition needs no if",
	"≤":       "write <=",
	"≥":       "write >=",
	"≠":       "write !=",
	"×":       "write *",
	"÷":       "write /",
	"“":       `write "`,
	"”":       `write "`,
	"‘":       "write '",
	"’":       "write '",
	"。":       "write .",
	"、":       "write ,",
	"　":       "write a blank",
}

// syntaxError says what the parser stumbled over in text in words that help
// somebody who knows other languages, or types Chinese.
func syntaxError(text string, err error) error {
	e := parseError(err)
	runes := []rune(text)
	before, at := "", ""
	if e.at < len(runes) {
		before, at = strings.TrimRightFunc(string(runes[:e.at]), unicode.IsSpace), string(runes[e.at])
	}
	found := unexpected.FindStringSubmatch(e.msg)
	switch {
	case strings.HasPrefix(e.msg, "unrecognized character"):
		help := wrote[at]
		if r := runes[min(e.at, len(runes)-1)]; r > 0xff00 && r < 0xff5f { // the full width form of ASCII
			help = "write " + string(r-0xfee0)
		}
		return e.say("%q is not part of the rule language", at, help)
	case strings.HasPrefix(e.msg, "literal not terminated"):
		return e.say("the condition ends inside a text", "", "close it with the quote that it begins with")
	case strings.HasPrefix(e.msg, "bad number syntax"):
		if w := window(runes, e.at); w != "" {
			return e.say("this is no number", "", fmt.Sprintf("how far to look back stands in quotes: %q", w))
		}
		return e.say("this is no number", "", unitless)
	case strings.HasPrefix(e.msg, "a map key must be"):
		return e.say("{ is not part of the rule language", "", "an attribute is read like attr.zone")
	case found == nil:
		return e
	case strings.HasSuffix(before, "%") || found[1] == "" && strings.HasSuffix(strings.TrimSpace(text), "%"):
		percent := min(e.at, len(runes)-1)
		for percent > 0 && runes[percent] != '%' {
			percent--
		}
		return &exprError{percent, `"%" divides, and needs a number behind it; ` + unitless}
	case found[1] == "":
		if open := unclosed(runes); open >= 0 {
			return &exprError{open, fmt.Sprintf("%c is not closed", runes[open])}
		}
		return e.say("the condition ends too early", "", "")
	case found[1] == ">" && strings.HasSuffix(before, "<"):
		return e.say("<> is not part of the rule language", "", "write !=")
	case found[1] == "," && before != "" && unicode.IsDigit(rune(before[len(before)-1])):
		return e.say("a comma can't stand here", "", "a decimal is written with a point, like 2.5")
	case slices.Contains([]string{"and", "or", "not", "in", "matches", "contains"}, strings.ToLower(found[1])) && found[1] != strings.ToLower(found[1]):
		return e.say("%q is not part of the rule language", found[1], "write "+strings.ToLower(found[1]))
	case wrote[strings.ToLower(found[1])] != "":
		return e.say("%q is not part of the rule language", found[1], wrote[strings.ToLower(found[1])])
	}
	if strings.Contains(found[0], "Operator") || strings.Contains(found[0], "Bracket") {
		return e.say("%q can't stand here", found[1], "")
	}
	return e.say("%q can't stand here", found[1], "an operator is missing before it, like and, or, <, ==")
}

const unitless = "numbers stand without a unit, in that of their metric"

// window returns the time without quotes that stands around at as the argument of a
// function, "" when none does.
func window(text []rune, at int) string {
	word := func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) || r == '.' }
	from, to := min(at, len(text)), min(at, len(text))
	for from > 0 && word(text[from-1]) {
		from--
	}
	for to < len(text) && word(text[to]) {
		to++
	}
	if w := string(text[from:to]); strings.HasSuffix(strings.TrimSpace(string(text[:from])), ",") && lookBackTime.MatchString(w) {
		return w
	}
	return ""
}

var lookBackTime = regexp.MustCompile(`^[0-9.]+(ms|s|m|h|d)$`)

// say returns e in other words, with help behind them.
func (e *exprError) say(format, what, help string) error {
	msg := format
	if what != "" {
		msg = fmt.Sprintf(format, what)
	}
	if help != "" {
		msg += "; " + help
	}
	return &exprError{e.at, msg}
}

// unclosed returns where the innermost bracket that is not closed stands, -1
// when there is none.
func unclosed(text []rune) int {
	var open []int
	quote := rune(0)
	for i, r := range text {
		switch {
		case quote != 0:
			if r == quote {
				quote = 0
			}
		case r == '"' || r == '\'' || r == '`':
			quote = r
		case strings.ContainsRune("([{", r):
			open = append(open, i)
		case strings.ContainsRune(")]}", r) && len(open) > 0:
			open = open[:len(open)-1]
		}
	}
	if len(open) == 0 {
		return -1
	}
	return open[len(open)-1]
}
