package citywarden

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Text is a name or sentence that people read, in the two languages of the
// platform. Either may be empty.
type Text struct {
	ZH string `json:"zh" yaml:"zh"`
	EN string `json:"en" yaml:"en"`
}

// In returns the text in lang ("zh" or "en"), or the other language when that
// one is empty.
func (t Text) In(lang string) string {
	if lang == "zh" && t.ZH != "" || t.EN == "" {
		return t.ZH
	}
	return t.EN
}

func (t Text) String() string { return t.In("en") }

// CheckText returns CodeInvalid unless s is at most limit characters of UTF-8
// without control characters.
func CheckText(what, s string, limit int) error {
	switch {
	case !utf8.ValidString(s):
		return Errorf(CodeInvalid, "%s is not UTF-8", what)
	case utf8.RuneCountInString(s) > limit:
		return Errorf(CodeInvalid, "%s has %d characters; at most %d are kept", what, utf8.RuneCountInString(s), limit)
	case strings.ContainsFunc(s, unicode.IsControl):
		return Errorf(CodeInvalid, "%s %q has control characters in it", what, s)
	}
	return nil
}
