package citywarden

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
