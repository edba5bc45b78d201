// Package notices writes notices as text, for the channels that people read
// themselves: mail and chat.
//
//	t, err := notices.NewTemplate(notices.Options{Language: "zh", Zone: zone})
//	title, text, err := t.Write(n)
package notices

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"text/template"
	"time"

	"github.com/citywarden/citywarden"
)

// Options of a Template; the zero value works.
type Options struct {
	Language string         // "zh", or "en"; "" means zh
	Title    string         // template of the title, in the language of text/template; "" for the usual one
	Text     string         // template of the rest
	Zone     *time.Location // of the times; nil means UTC
}

// Template writes notices in one language. It may be used by several goroutines.
type Template struct {
	lang        string
	zone        *time.Location
	title, text *template.Template
}

// Values are what a template may use.
type Values struct {
	Key      string    // names the event for ever
	Kind     string    // what it tells of, in words
	Case     string    // number of the case
	Alarm    string    // "" for none
	Severity string    // in words, "" for a case without alarms
	Title    string    // of the case
	Text     string    // what happened
	Class    string    // like event/0501
	Grid     string    // code of the unit grid, "" for none
	Place    string    // "24.11700, 117.61300", "" when it is not known
	At       time.Time // in the county's zone
}

var usual = map[string]Options{
	"zh": {
		Title: `{{if .Severity}}【{{.Severity}}】{{end}}{{.Title}}`,
		Text: `{{.Kind}}：{{.Text}}
{{if .Case}}案卷 {{.Case}}，{{end}}{{.At.Format "2006-01-02 15:04:05"}}{{if .Grid}}，单元网格 {{.Grid}}{{end}}{{if .Place}}
位置 {{.Place}}{{end}}`,
	},
	"en": {
		Title: `{{if .Severity}}[{{.Severity}}] {{end}}{{.Title}}`,
		Text: `{{.Kind}}: {{.Text}}
{{if .Case}}case {{.Case}}, {{end}}{{.At.Format "2006-01-02 15:04:05"}}{{if .Grid}}, unit grid {{.Grid}}{{end}}{{if .Place}}
position {{.Place}}{{end}}`,
	},
}

var kinds = map[citywarden.NoticeKind]citywarden.Text{
	citywarden.NoticeOpened:    {ZH: "新案卷", EN: "new case"},
	citywarden.NoticeReopened:  {ZH: "再次发生", EN: "it came back"},
	citywarden.NoticeSeverity:  {ZH: "级别上升", EN: "more severe"},
	citywarden.NoticeMembers:   {ZH: "范围扩大", EN: "more devices"},
	citywarden.NoticeRemaining: {ZH: "仍未恢复", EN: "still active"},
	citywarden.NoticeEscalated: {ZH: "逾时上报", EN: "escalated"},

	citywarden.NoticeDispatched: {ZH: "任务", EN: "task"},
	citywarden.NoticeWithdrawn:  {ZH: "任务取消", EN: "task withdrawn"},
	citywarden.NoticeOverdue:    {ZH: "超时", EN: "overdue"},
	citywarden.NoticeSupervised: {ZH: "督办", EN: "supervised"},
	citywarden.NoticeUrged:      {ZH: "催办", EN: "urged"},

	citywarden.NoticeTest: {ZH: "测试", EN: "test"},
}

// TemplateError is a mistake in one of the templates of Options.
type TemplateError struct {
	Field string // "title" or "text", "language"
	msg   string
}

func (e *TemplateError) Error() string { return e.msg }

// NewTemplate returns a template. A *TemplateError says which of the options is
// wrong: each is tried with a notice, so that nothing is left to find at night.
func NewTemplate(o Options) (*Template, error) {
	if o.Language == "" {
		o.Language = "zh"
	}
	u, ok := usual[o.Language]
	if !ok {
		return nil, &TemplateError{"language", fmt.Sprintf("%q is not known; it is zh or en", o.Language)}
	}
	if o.Zone == nil {
		o.Zone = time.UTC
	}
	if o.Title == "" {
		o.Title = u.Title
	}
	if o.Text == "" {
		o.Text = u.Text
	}
	t := &Template{lang: o.Language, zone: o.Zone}
	for _, p := range []struct {
		field, text string
		to          **template.Template
	}{{"title", o.Title, &t.title}, {"text", o.Text, &t.text}} {
		x, err := template.New(p.field).Parse(p.text)
		if err != nil {
			return nil, &TemplateError{p.field, fmt.Sprintf("the template can't be read: %s", strings.TrimPrefix(err.Error(), "template: "))}
		}
		*p.to = x
		if _, err := t.write(x, citywarden.Notice{At: time.Unix(0, 0)}); err != nil {
			return nil, &TemplateError{p.field, fmt.Sprintf("the template can't be filled in: %s; there are %s", strings.TrimPrefix(err.Error(), "template: "), valueNames())}
		}
	}
	return t, nil
}

func valueNames() string {
	var out []string
	for f := range reflect.TypeFor[Values]().Fields() {
		out = append(out, "."+f.Name)
	}
	return strings.Join(out, ", ")
}

// Write returns the title, in one line, and the rest.
func (t *Template) Write(n citywarden.Notice) (title, text string, err error) {
	if title, err = t.write(t.title, n); err == nil {
		text, err = t.write(t.text, n)
	}
	if err != nil {
		return "", "", fmt.Errorf("write notice %s: %w", n.Key, err)
	}
	return strings.Join(strings.Fields(title), " "), strings.TrimSpace(text), nil
}

func (t *Template) write(x *template.Template, n citywarden.Notice) (string, error) {
	kind, ok := kinds[n.Kind]
	if !ok {
		kind = citywarden.Text{ZH: string(n.Kind), EN: string(n.Kind)}
	}
	v := Values{
		Key: n.Key, Kind: kind.In(t.lang), Case: string(n.Case), Alarm: string(n.Alarm), Severity: n.Severity.Text().In(t.lang), Title: n.Title.In(t.lang),
		Text: n.Text.In(t.lang), Class: string(n.Class), Grid: string(n.Grid), At: n.At.In(t.zone),
	}
	if n.Location != nil {
		v.Place = fmt.Sprintf("%.5f, %.5f", n.Location.Lat, n.Location.Lon)
	}
	var b bytes.Buffer
	err := x.Execute(&b, v)
	return b.String(), err
}
