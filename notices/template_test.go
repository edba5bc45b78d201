package notices

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/citywarden/citywarden"
)

func aNotice() citywarden.Notice {
	return citywarden.Notice{
		Key: "E0501202611230001/0/opened", Kind: citywarden.NoticeOpened, Case: "E0501202611230001", Alarm: "pipe.burst:p1:1", Severity: citywarden.Major,
		Title: citywarden.Text{ZH: "管网\n爆管", EN: "Pipe burst"}, Text: citywarden.Text{ZH: "压力低", EN: "pressure is low"}, Class: "event/0501", Grid: "350623100001001",
		Location: &citywarden.Point{Lat: 24.117, Lon: 117.613}, At: time.Date(2026, 11, 23, 2, 0, 0, 0, time.UTC),
	}
}

func TestWrite(t *testing.T) {
	shanghai := time.FixedZone("CST", 8*3600)
	bare := aNotice()
	bare.Grid, bare.Location, bare.Kind = "", nil, "something new"
	task := aNotice() // of a case that a person opened
	task.Kind, task.Severity, task.Text = citywarden.NoticeDispatched, 0, citywarden.Text{ZH: "chen 派遣给 供水公司", EN: "dispatched to 供水公司 by chen"}
	for _, c := range []struct {
		o           Options
		n           citywarden.Notice
		title, text string
	}{
		{Options{Zone: shanghai}, aNotice(), "【重要】管网 爆管", "新案卷：压力低\n案卷 E0501202611230001，2026-11-23 10:00:00，单元网格 350623100001001\n位置 24.11700, 117.61300"},
		{Options{Language: "en"}, aNotice(), "[major] Pipe burst", "new case: pressure is low\ncase E0501202611230001, 2026-11-23 02:00:00, unit grid 350623100001001\nposition 24.11700, 117.61300"},
		{Options{Language: "en"}, bare, "[major] Pipe burst", "something new: pressure is low\ncase E0501202611230001, 2026-11-23 02:00:00"},
		{Options{}, task, "管网 爆管", "任务：chen 派遣给 供水公司\n案卷 E0501202611230001，2026-11-23 02:00:00，单元网格 350623100001001\n位置 24.11700, 117.61300"},
		{Options{Language: "en"}, task, "Pipe burst", "task: dispatched to 供水公司 by chen\ncase E0501202611230001, 2026-11-23 02:00:00, unit grid 350623100001001\nposition 24.11700, 117.61300"},
		{Options{Title: "{{.Case}} {{.Key}}", Text: "{{.Alarm}} {{.Class}} {{.At.Format \"15:04\"}}"}, aNotice(), "E0501202611230001 E0501202611230001/0/opened", "pipe.burst:p1:1 event/0501 02:00"},
	} {
		x, err := NewTemplate(c.o)
		if err != nil {
			t.Fatal(err)
		}
		title, text, err := x.Write(c.n)
		if err != nil || title != c.title || text != c.text {
			t.Errorf("%+v: %q, %q, %v; want %q, %q", c.o, title, text, err, c.title, c.text)
		}
	}
}

func TestMistakesInTemplates(t *testing.T) {
	for _, c := range []struct {
		o           Options
		field, says string
	}{
		{Options{Language: "de"}, "language", `"de" is not known`},
		{Options{Title: "{{.Case"}, "title", "can't be read: title:1: unclosed action"},
		{Options{Text: "a\n{{.Titel}}"}, "text", "text:2:2"},
		{Options{Text: "{{.Titel}}"}, "text", "there are .Key, .Kind, .Case, .Alarm, .Severity, .Title, .Text, .Class, .Grid, .Place, .At"},
		{Options{Text: "{{.At.Format}}"}, "text", "can't be filled in"},
	} {
		_, err := NewTemplate(c.o)
		var bad *TemplateError
		if !errors.As(err, &bad) || bad.Field != c.field || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v, want %s: %s", c.o, err, c.field, c.says)
		}
	}
}
