package chart

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func example() *Chart {
	c := &Chart{Title: "a < b & c", Curves: []Curve{{Name: "pressure", Unit: "bar"}, {Name: "button", Step: true}}, Spans: []Span{{"burst", noon.Add(time.Minute), noon.Add(3 * time.Minute)}}}
	for i := range 20 {
		at := noon.Add(time.Duration(i) * 15 * time.Second)
		c.Curves[0].Points = append(c.Curves[0].Points, Point{at, 3 - float64(i%7)/10})
		c.Curves[1].Points = append(c.Curves[1].Points, Point{at, float64(i / 10)})
	}
	return c
}

func TestWrite(t *testing.T) {
	var one, two bytes.Buffer
	if err := example().Write(&one); err != nil {
		t.Fatal(err)
	}
	if err := example().Write(&two); err != nil || !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Error("the same chart, other bytes", err)
	}
	elements := map[string]int{}
	for d := xml.NewDecoder(&two); ; {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := tok.(xml.StartElement); ok {
			elements[e.Name.Local]++
			for _, a := range e.Attr {
				if a.Name.Local == "points" {
					if n := len(strings.Fields(a.Value)); n != 20 && n != 39 {
						t.Errorf("a curve of %d points", n)
					}
					if strings.Contains(a.Value, "NaN") || strings.Contains(a.Value, "-") {
						t.Errorf("a curve leaves the picture: %s", a.Value)
					}
				}
			}
		}
	}
	if elements["polyline"] != 2 || elements["rect"] != 3 {
		t.Errorf("elements: %v", elements)
	}
	for _, want := range []string{"a &lt; b &amp; c", "pressure, bar", ">12:01:00<", ">2.4<", "burst"} {
		if !strings.Contains(one.String(), want) {
			t.Errorf("no %s in it", want)
		}
	}
	if err := (&Chart{}).Write(io.Discard); err == nil {
		t.Error("nothing was drawn without a word")
	}
}

func TestNice(t *testing.T) {
	for v, want := range map[float64]float64{0: 1, 0.03: 0.05, 1: 1, 1.2: 2, 30: 50, 70: 100} {
		if got := nice(v); got < want*0.999 || got > want*1.001 {
			t.Errorf("nice(%g) = %g, want %g", v, got, want)
		}
	}
	if digits(0.05) != 2 || digits(0.1) != 1 || digits(20) != 0 {
		t.Errorf("digits: %d %d %d", digits(0.05), digits(0.1), digits(20))
	}
}
